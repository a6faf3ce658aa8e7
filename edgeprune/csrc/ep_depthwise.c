/* Depthwise convolution with any filter, stride, dilation and multiplier; ep_depthwise_3x3.c is for the common one.
 *
 * Taps over padding are left out. Within a row, outputs whose windows do not reach beyond the left and right ends are
 * summed four at a time, so that they share the load of each weight; the input's zero point is in the sum they start from.
 */
#include "ep_depthwise.h"

#include "ep_add.h"

#define EP_TOGETHER 4

/* The taps of a window that lie within the input, and the position of the first of them. */
struct EP(taps) {
    int32_t first, count, at;
};

struct EP(channel) {
    const int8_t *weights;
    int32_t bias;                      /* without the zero point */
    int32_t multiplier, shift, offset; /* the offset is of `EP(rescaled)`, output's zero point included */
};

static struct EP(taps) EP(taps_within)(int32_t position, const struct EP(windows) *by)
{
    struct EP(taps) taps = {0, 0, position};
    for (; taps.at < 0; taps.at += by->dilation) {
        ++taps.first;
    }
    while (taps.first + taps.count < by->size && taps.at + taps.count * by->dilation < by->input) {
        ++taps.count;
    }
    return taps;
}

static int32_t EP(depthwise_sum)(const int8_t *input, struct EP(taps) rows, struct EP(taps) columns,
                                 const struct EP(channel) *channel, const struct EP(depthwise) *by)
{
    const int32_t step = by->width.dilation * by->channels, zero = by->zero;
    int32_t sum = channel->bias;
    for (int32_t i = 0; i < rows.count; ++i) {
        const int32_t y = rows.at + i * by->height.dilation;
        const int8_t *from = input + (y * by->width.input + columns.at) * by->channels;
        const int8_t *weight = channel->weights + (rows.first + i) * by->width.size + columns.first;
        for (int32_t j = columns.count; j > 0; --j, from += step) {
            sum += *weight++ * (*from - zero);
        }
    }
    return sum;
}

/* What sums of all columns of a filter start from where these rows of it are within the input. */
static int32_t EP(depthwise_start)(struct EP(taps) rows, const struct EP(channel) *channel,
                                   const struct EP(depthwise) *by)
{
    const int8_t *weight = channel->weights + rows.first * by->width.size;
    int32_t weights = 0;
    for (int32_t left = rows.count * by->width.size; left > 0; --left) {
        weights += *weight++;
    }
    return channel->bias - by->zero * weights;
}

/* Sums of EP_TOGETHER neighbours in a row. */
static void EP(depthwise_sums)(const int8_t *from, int32_t *sums, int32_t start, struct EP(taps) rows,
                               const struct EP(channel) *channel, const struct EP(depthwise) *by)
{
    const int32_t step = by->width.dilation * by->channels, apart = by->width.stride * by->channels;
    const int32_t next = (by->height.dilation * by->width.input - by->width.size * by->width.dilation) * by->channels;
    const int8_t *weight = channel->weights + rows.first * by->width.size;
    const int32_t columns = by->width.size;
    int32_t a = start, b = start, c = start, d = start;
    for (int32_t i = rows.count; i > 0; --i, from += next) {
        for (const int8_t *end = weight + columns; weight != end; from += step) {
            const int32_t w = *weight++;
            a += w * from[0];
            b += w * from[apart];
            c += w * from[2 * apart];
            d += w * from[3 * apart];
        }
    }
    sums[0] = a;
    sums[1] = b;
    sums[2] = c;
    sums[3] = d;
}

static int32_t EP(depthwise_output)(int32_t sum, const struct EP(channel) *channel, const struct EP(depthwise) *by)
{
    const int32_t value =
        by->is_short ? EP(rescaled)(2 * sum, channel->multiplier, channel->offset, -channel->shift)
                     : EP(rescale)(sum, channel->multiplier, channel->shift) + by->output_zero;
    return EP(clamped)(value, by->low, by->high);
}

static void EP(depthwise_row)(const int8_t *input, int8_t *output, struct EP(taps) rows,
                              const struct EP(channel) *channel, const struct EP(depthwise) *by, const int8_t *other,
                              const struct EP(addition) *addition)
{
    const struct EP(windows) *width = &by->width;
    const int32_t channels = by->channels * by->multiplier, start = EP(depthwise_start)(rows, channel, by);
    const int32_t reach = (EP_TOGETHER - 1) * width->stride + (width->size - 1) * width->dilation;
    int32_t column = -width->before, count;
    for (int32_t left = width->output; left > 0; left -= count, column += count * width->stride) {
        int32_t sums[EP_TOGETHER];
        if (left >= EP_TOGETHER && column >= 0 && column + reach < width->input) {
            count = EP_TOGETHER;
            const int8_t *from = input + (rows.at * width->input + column) * by->channels;
            EP(depthwise_sums)(from, sums, start, rows, channel, by);
        } else {
            count = 1;
            sums[0] = EP(depthwise_sum)(input, rows, EP(taps_within)(column, width), channel, by);
        }
        for (int32_t i = 0; i < count; ++i, output += channels) {
            const int32_t value = EP(depthwise_output)(sums[i], channel, by);
            *output = addition ? EP(added)(value, *other, addition) : (int8_t)value;
            other = addition ? other + channels : other;
        }
    }
}

void EP(depthwise)(const int8_t *input, int8_t *output, const int8_t *weights, const int32_t *bias,
                   const int32_t *multipliers, const int8_t *shifts, const struct EP(depthwise) *by,
                   const int8_t *other, const struct EP(addition) *addition)
{
    const struct EP(depthwise) of = *by; /* a copy that no store can change */
    const int32_t taps = of.height.size * of.width.size, channels = of.channels * of.multiplier;
    for (int32_t batch = 0; batch < of.batches; ++batch) {
        for (int32_t row = 0; row < of.height.output; ++row) {
            const struct EP(taps) rows = EP(taps_within)(row * of.height.stride - of.height.before, &of.height);
            for (int32_t i = 0; i < channels; ++i) {
                const int32_t shift = of.is_short ? -shifts[i] : 1;
                const int32_t offset = (1 << (shift - 1)) + of.output_zero * (1 << shift);
                const struct EP(channel) channel = {weights + i * taps, bias[i], multipliers[i], shifts[i], offset};
                EP(depthwise_row)(input + i / of.multiplier, output + i, rows, &channel, &of,
                                  addition ? other + i : other, addition);
            }
            output += of.width.output * channels;
            other = addition ? other + of.width.output * channels : other;
        }
        input += of.height.input * of.width.input * of.channels;
    }
}
