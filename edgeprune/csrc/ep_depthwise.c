/* Depthwise convolution with any filter, stride, dilation and multiplier; ep_depthwise_3x3.c is for the common one. */
#include "ep_kernels.h"
#include "ep_add.h"

#define EP_TOGETHER 4 /* outputs of a row that share the load of a weight */

struct EP(channel) {
    const int8_t *weights;
    int32_t bias, multiplier, shift;
};

static int32_t EP(depthwise_sum)(const int8_t *input, int32_t row, int32_t column, const struct EP(channel) *channel,
                                 const struct EP(depthwise) *by)
{
    const int8_t *weight = channel->weights;
    int32_t sum = channel->bias;
    for (int32_t i = 0; i < by->height.size; ++i) {
        const int32_t y = row + i * by->height.dilation;
        for (int32_t j = 0; j < by->width.size; ++j) {
            const int32_t x = column + j * by->width.dilation;
            const int32_t inside = y >= 0 && y < by->height.input && x >= 0 && x < by->width.input;
            sum += *weight++ * (inside ? input[(y * by->width.input + x) * by->channels] : by->zero);
        }
    }
    return sum;
}

/* Sums of EP_TOGETHER neighbours in a row; their windows lie within the input, the first one's at `input`. */
static void EP(depthwise_sums)(const int8_t *input, int32_t *sums, const struct EP(channel) *channel,
                               const struct EP(depthwise) *by)
{
    const int32_t step = by->width.dilation * by->channels, apart = by->width.stride * by->channels;
    const int32_t next = (by->height.dilation * by->width.input - by->width.size * by->width.dilation) * by->channels;
    const int8_t *weight = channel->weights;
    int32_t a = channel->bias, b = a, c = a, d = a;
    for (int32_t i = by->height.size; i > 0; --i) {
        for (int32_t j = by->width.size; j > 0; --j) {
            const int32_t w = *weight++;
            a += w * input[0];
            b += w * input[apart];
            c += w * input[2 * apart];
            d += w * input[3 * apart];
            input += step;
        }
        input += next;
    }
    sums[0] = a;
    sums[1] = b;
    sums[2] = c;
    sums[3] = d;
}

static int32_t EP(depthwise_output)(int32_t sum, const struct EP(channel) *channel, const struct EP(depthwise) *by)
{
    return EP(clamped)(EP(rescale)(sum, channel->multiplier, channel->shift) + by->output_zero, by->low, by->high);
}

static void EP(depthwise_channel)(const int8_t *input, int8_t *output, const struct EP(channel) *channel,
                                  const struct EP(depthwise) *by, const int8_t *other,
                                  const struct EP(addition) *addition)
{
    const int32_t channels = by->channels * by->multiplier;
    const int32_t last_row = by->height.input - (by->height.size - 1) * by->height.dilation - 1;
    const int32_t last_column = by->width.input - (by->width.size - 1) * by->width.dilation - 1;
    for (int32_t i = 0; i < by->height.output; ++i) {
        const int32_t row = i * by->height.stride - by->height.before;
        for (int32_t j = 0; j < by->width.output;) {
            const int32_t column = j * by->width.stride - by->width.before;
            const int32_t last = column + (EP_TOGETHER - 1) * by->width.stride;
            int32_t sums[EP_TOGETHER], count = 1;
            if (row >= 0 && row <= last_row && column >= 0 && last <= last_column &&
                j + EP_TOGETHER <= by->width.output) {
                EP(depthwise_sums)(input + (row * by->width.input + column) * by->channels, sums, channel, by);
                count = EP_TOGETHER;
            } else {
                sums[0] = EP(depthwise_sum)(input, row, column, channel, by);
            }
            for (int32_t k = 0; k < count; ++k) {
                const int32_t at = (i * by->width.output + j + k) * channels;
                const int32_t value = EP(depthwise_output)(sums[k], channel, by);
                output[at] = addition ? EP(added)(value, other[at], addition) : (int8_t)value;
            }
            j += count;
        }
    }
}

void EP(depthwise)(const int8_t *input, int8_t *output, const int8_t *weights, const int32_t *bias,
                   const int32_t *multipliers, const int8_t *shifts, const struct EP(depthwise) *by,
                   const int8_t *other, const struct EP(addition) *addition)
{
    const int32_t taps = by->height.size * by->width.size;
    for (int32_t batch = 0; batch < by->batches; ++batch) {
        for (int32_t i = 0; i < by->channels * by->multiplier; ++i) {
            const struct EP(channel) channel = {weights + i * taps, bias[i], multipliers[i], shifts[i]};
            EP(depthwise_channel)(input + i / by->multiplier, output + i, &channel, by, addition ? other + i : other,
                                  addition);
        }
        const int32_t size = by->height.output * by->width.output * by->channels * by->multiplier;
        input += by->height.input * by->width.input * by->channels;
        output += size;
        other = addition ? other + size : other;
    }
}
