#include "ep_transpose_conv.h"

/* The sum of one value of the result. A row of the kernel meets a row of the input where
 * y + top = input row * stride + kernel row: each `stride`th kernel row, with input rows one apart, upwards.
 */
static int32_t EP(transpose_sum)(const int8_t *in, const int8_t *weights, const int32_t *sizes, int32_t y, int32_t x)
{
    const int32_t height = sizes[EP_TRANSPOSE_HEIGHT], width = sizes[EP_TRANSPOSE_WIDTH];
    const int32_t channels = sizes[EP_TRANSPOSE_CHANNELS], zero = sizes[EP_TRANSPOSE_ZERO_IN];
    const int32_t down = sizes[EP_TRANSPOSE_STRIDE_HEIGHT], along = sizes[EP_TRANSPOSE_STRIDE_WIDTH];
    const int32_t columns = sizes[EP_TRANSPOSE_KERNEL_WIDTH];
    int32_t sum = 0, row = y / down;
    for (int32_t i = y % down; i < sizes[EP_TRANSPOSE_KERNEL_HEIGHT] && row >= 0; i += down, row--) {
        if (row >= height) {
            continue;
        }
        int32_t column = x / along;
        for (int32_t j = x % along; j < columns && column >= 0; j += along, column--) {
            if (column >= width) {
                continue;
            }
            const int8_t *values = in + (row * width + column) * channels;
            const int8_t *factors = weights + (i * columns + j) * channels;
            for (int32_t c = 0; c < channels; c++) {
                sum += (values[c] - zero) * factors[c];
            }
        }
    }
    return sum;
}

void EP(transpose_conv)(const int8_t *in, int8_t *out, const int8_t *weights, const int32_t *channels,
                        const int32_t *sizes)
{
    const int32_t batch = sizes[EP_TRANSPOSE_HEIGHT] * sizes[EP_TRANSPOSE_WIDTH] * sizes[EP_TRANSPOSE_CHANNELS];
    const int32_t filter = sizes[EP_TRANSPOSE_KERNEL_HEIGHT] * sizes[EP_TRANSPOSE_KERNEL_WIDTH]
                           * sizes[EP_TRANSPOSE_CHANNELS];
    const int32_t top = sizes[EP_TRANSPOSE_PAD_TOP], left = sizes[EP_TRANSPOSE_PAD_LEFT];
    for (int32_t n = 0; n < sizes[EP_TRANSPOSE_BATCHES]; n++, in += batch) {
        for (int32_t y = 0; y < sizes[EP_TRANSPOSE_OUT_HEIGHT]; y++) {
            for (int32_t x = 0; x < sizes[EP_TRANSPOSE_OUT_WIDTH]; x++) {
                const int32_t *channel = channels;
                for (int32_t c = 0; c < sizes[EP_TRANSPOSE_OUT_CHANNELS]; c++, channel += 3) {
                    const int32_t sum = EP(transpose_sum)(in, weights + c * filter, sizes, y + top, x + left);
                    const int32_t scaled = EP(rescale)(sum + channel[0], channel[1], channel[2]);
                    *out++ = EP(clamped)(scaled + sizes[EP_TRANSPOSE_ZERO_OUT], sizes[EP_TRANSPOSE_LOW],
                                         sizes[EP_TRANSPOSE_HIGH]);
                }
            }
        }
    }
}
