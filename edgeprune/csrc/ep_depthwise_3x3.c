/* 3x3 depthwise convolution, channel by channel: the nine weights of a channel stay in registers while they slide.
 *
 * One position along the filter's way is a column of three values: it is loaded once and meets all three columns of the
 * filter, which belong to three neighbouring outputs (two, for stride 2). With the DSP instructions the first two values
 * are a pair that one SMLAD multiplies by a pair of weights. Weights and bias are doubled, so that a rounding high
 * multiplication by the multiplier is the specification's rounding doubling one.
 *
 * Padding holds the input's zero point. Padded columns are made of it; of padded lines the weights are zero instead, and
 * what they would have given is added to the bias: so no value outside of the input is loaded.
 */
#include "ep_depthwise.h"
#include "ep_add.h"
#include "ep_packed.h"

#define EP_INLINE static inline __attribute__((always_inline))

#if EP_DSP

struct EP(column) {
    int32_t pair, third;
};

struct EP(filter) {
    int32_t pair[3], thirds, third;
};

EP_INLINE int32_t EP(twice)(int32_t halves)
{
    int32_t sum;
    __asm__("sadd16 %0, %1, %1" : "=r"(sum) : "r"(halves));
    return sum;
}

EP_INLINE int32_t EP(paired)(int32_t low, int32_t high)
{
    int32_t pair;
    __asm__("pkhbt %0, %1, %2, lsl #16" : "=r"(pair) : "r"(low), "r"(high));
    return pair;
}

EP_INLINE int32_t EP(sum_of_pair)(int32_t a, int32_t b, int32_t sum)
{
    int32_t result;
    __asm__("smlad %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}

EP_INLINE int32_t EP(sum_of_low)(int32_t a, int32_t b, int32_t sum)
{
    int32_t result;
    __asm__("smlabb %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}

EP_INLINE int32_t EP(sum_of_high)(int32_t a, int32_t b, int32_t sum)
{
    int32_t result;
    __asm__("smlabt %0, %1, %2, %3" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
    return result;
}

EP_INLINE int32_t EP(saturated)(int32_t value)
{
    int32_t result;
    __asm__("ssat %0, #8, %1" : "=r"(result) : "r"(value));
    return result;
}

EP_INLINE struct EP(column) EP(column_of)(int32_t first, int32_t second, int32_t third)
{
    const struct EP(column) column = {EP(paired)(first, second), third};
    return column;
}

EP_INLINE struct EP(filter) EP(unpacked)(const int32_t *packed)
{
    const struct EP(filter) filter = {
        {EP(twice)(EP(even_bytes)((uint32_t)packed[0])), EP(twice)(EP(odd_bytes)((uint32_t)packed[0])),
         EP(twice)(EP(even_bytes)((uint32_t)packed[1]))},
        EP(twice)(EP(odd_bytes)((uint32_t)packed[1])),
        2 * (int8_t)packed[2],
    };
    return filter;
}

/* + the column times column `at` of the filter */
EP_INLINE int32_t EP(plus_column)(int32_t sum, struct EP(column) column, const struct EP(filter) *filter, int at)
{
    const int32_t paired = EP(sum_of_pair)(column.pair, filter->pair[at], sum);
    return at == 0   ? EP(sum_of_low)(column.third, filter->thirds, paired)
           : at == 1 ? EP(sum_of_high)(column.third, filter->thirds, paired)
                     : EP(sum_of_low)(column.third, filter->third, paired);
}

/* Drops the first line of weights; returns `sum` + zero * their sum. */
EP_INLINE int32_t EP(without_first)(struct EP(filter) *filter, int32_t zero, int32_t sum)
{
    for (int at = 0; at < 3; ++at) {
        sum = EP(sum_of_low)(filter->pair[at], zero, sum);
        filter->pair[at] &= (int32_t)0xffff0000;
    }
    return sum;
}

EP_INLINE int32_t EP(without_third)(struct EP(filter) *filter, int32_t zero, int32_t sum)
{
    sum = EP(sum_of_low)(filter->third, zero, sum);
    sum = EP(sum_of_pair)(filter->thirds, EP(paired)(zero, zero), sum);
    filter->thirds = filter->third = 0;
    return sum;
}

#else

struct EP(column) {
    int32_t value[3];
};

struct EP(filter) {
    int32_t weight[3][3]; /* [line][step] */
};

EP_INLINE int32_t EP(saturated)(int32_t value)
{
    return EP(clamped)(value, -128, 127);
}

EP_INLINE struct EP(column) EP(column_of)(int32_t first, int32_t second, int32_t third)
{
    const struct EP(column) column = {{first, second, third}};
    return column;
}

EP_INLINE int32_t EP(twice_byte)(int32_t word, int at)
{
    return 2 * (int8_t)(uint8_t)((uint32_t)word >> (8 * at));
}

EP_INLINE struct EP(filter) EP(unpacked)(const int32_t *packed)
{
    const int32_t a = packed[0], b = packed[1];
    const struct EP(filter) filter = {{
        {EP(twice_byte)(a, 0), EP(twice_byte)(a, 1), EP(twice_byte)(b, 0)},
        {EP(twice_byte)(a, 2), EP(twice_byte)(a, 3), EP(twice_byte)(b, 2)},
        {EP(twice_byte)(b, 1), EP(twice_byte)(b, 3), EP(twice_byte)(packed[2], 0)},
    }};
    return filter;
}

EP_INLINE int32_t EP(plus_column)(int32_t sum, struct EP(column) column, const struct EP(filter) *filter, int at)
{
    return sum + column.value[0] * filter->weight[0][at] + column.value[1] * filter->weight[1][at] +
           column.value[2] * filter->weight[2][at];
}

EP_INLINE int32_t EP(without_line)(struct EP(filter) *filter, int line, int32_t zero, int32_t sum)
{
    for (int at = 0; at < 3; ++at) {
        sum += zero * filter->weight[line][at];
        filter->weight[line][at] = 0;
    }
    return sum;
}

EP_INLINE int32_t EP(without_first)(struct EP(filter) *filter, int32_t zero, int32_t sum)
{
    return EP(without_line)(filter, 0, zero, sum);
}

EP_INLINE int32_t EP(without_third)(struct EP(filter) *filter, int32_t zero, int32_t sum)
{
    return EP(without_line)(filter, 2, zero, sum);
}

#endif

/* How outputs end; known when a kernel is compiled. */
enum { EP_SATURATED, EP_CLAMPED, EP_ADDED };

/* What makes an output of a doubled sum. */
struct EP(rescaling) {
    int32_t multiplier, offset, shift; /* the offset holds half a step and the zero point, both times 2^shift */
    int32_t low, high;
    const struct EP(addition) *addition;
};

EP_INLINE int8_t EP(output_of)(int32_t doubled, const int8_t *other, const struct EP(rescaling) *by, int ending)
{
    const int32_t value = EP(rescaled)(doubled, by->multiplier, by->offset, by->shift);
    if (ending == EP_SATURATED) {
        return (int8_t)EP(saturated)(value);
    }
    const int8_t clamped = EP(clamped)(value, by->low, by->high);
    return ending == EP_ADDED ? EP(added)(clamped, *other, by->addition) : clamped;
}

EP_INLINE struct EP(column) EP(load)(const int8_t *middle, int32_t before, int32_t after)
{
    return EP(column_of)(middle[before], middle[0], middle[after]);
}

/* One line of one channel. `middle` is its first position on the filter's middle line. */
EP_INLINE void EP(slide)(const int8_t *middle, int32_t before, int32_t after, int8_t *output, const int8_t *other,
                         const struct EP(filter) *filter, int32_t bias, const struct EP(rescaling) *rescaling,
                         const struct EP(sliding) *by, int stride, int ending)
{
    const int32_t step = by->step, output_step = by->output_step;
    const struct EP(column) padding = EP(column_of)(by->zero, by->zero, by->zero);
    const int32_t beyond = (by->output_steps - 1) * stride + 3 - by->pad_step > by->steps;
    const int8_t *const end = output + (by->output_steps - beyond) * output_step;
    struct EP(column) column = padding;
    if (!by->pad_step) {
        column = EP(load)(middle, before, after);
        middle += step;
    }
    int32_t current = EP(plus_column)(bias, column, filter, 0), next = 0;
    if (stride == 1) {
        column = EP(load)(middle, before, after);
        middle += step;
        current = EP(plus_column)(current, column, filter, 1);
        next = EP(plus_column)(bias, column, filter, 0);
    }
    while (output != end) {
        if (stride == 2) {
            column = EP(load)(middle, before, after);
            middle += step;
            current = EP(plus_column)(current, column, filter, 1);
        }
        column = EP(load)(middle, before, after);
        middle += step;
        const int32_t sum = EP(plus_column)(current, column, filter, 2);
        if (stride == 1) {
            current = EP(plus_column)(next, column, filter, 1);
            next = EP(plus_column)(bias, column, filter, 0);
        } else {
            current = EP(plus_column)(bias, column, filter, 0);
        }
        *output = EP(output_of)(sum, other, rescaling, ending);
        output += output_step;
        other += output_step;
    }
    if (beyond) {
        if (stride == 2) {
            current = EP(plus_column)(current, EP(load)(middle, before, after), filter, 1);
        }
        *output = EP(output_of)(EP(plus_column)(current, padding, filter, 2), other, rescaling, ending);
    }
}

EP_INLINE void EP(slide_channel)(const int8_t *input, int8_t *output, const int8_t *other, const int32_t *packed,
                                 const struct EP(sliding) *by, const struct EP(addition) *addition, int stride,
                                 int ending)
{
    const int32_t shift = (packed[2] >> 8) & 31;
    const int32_t offset = (1 << (shift - 1)) + by->output_zero * (1 << shift);
    const struct EP(rescaling) rescaling = {packed[4], offset, shift, by->low, by->high, addition};
    int32_t line = 1 - by->pad_line;
    for (int32_t left = by->output_lines; left > 0; --left) {
        struct EP(filter) filter = EP(unpacked)(packed);
        int32_t bias = packed[3], before = -by->line, after = by->line;
        if (line == 0) {
            bias = EP(without_first)(&filter, by->zero, bias);
            before = 0;
        }
        if (line == by->lines - 1) {
            bias = EP(without_third)(&filter, by->zero, bias);
            after = 0;
        }
        const int8_t *middle = input + line * by->line;
        EP(slide)(middle, before, after, output, other, &filter, bias, &rescaling, by, stride, ending);
        line += by->line_stride;
        output += by->output_line;
        other += by->output_line;
    }
}

EP_INLINE void EP(slide_all)(const int8_t *input, int8_t *output, const int8_t *other, const int32_t *packed,
                             const struct EP(sliding) *by, const struct EP(addition) *addition, int stride, int ending)
{
    const struct EP(sliding) of = *by; /* a copy that no store can change */
    for (int32_t batch = 0; batch < of.batches; ++batch) {
        for (int32_t i = 0; i < of.channels; ++i) {
            EP(slide_channel)(input + i, output + i, other + i, packed + 5 * i, &of, addition, stride, ending);
        }
        input += of.lines * of.steps * of.channels;
        output += of.output_lines * of.output_steps * of.channels;
        other += of.output_lines * of.output_steps * of.channels;
    }
}

void EP(depthwise_stride_1_saturated)(const int8_t *input, int8_t *output, const int32_t *packed,
                                      const struct EP(sliding) *by)
{
    EP(slide_all)(input, output, output, packed, by, NULL, 1, EP_SATURATED);
}

void EP(depthwise_stride_2_saturated)(const int8_t *input, int8_t *output, const int32_t *packed,
                                      const struct EP(sliding) *by)
{
    EP(slide_all)(input, output, output, packed, by, NULL, 2, EP_SATURATED);
}

void EP(depthwise_stride_1_clamped)(const int8_t *input, int8_t *output, const int32_t *packed,
                                    const struct EP(sliding) *by)
{
    EP(slide_all)(input, output, output, packed, by, NULL, 1, EP_CLAMPED);
}

void EP(depthwise_stride_2_clamped)(const int8_t *input, int8_t *output, const int32_t *packed,
                                    const struct EP(sliding) *by)
{
    EP(slide_all)(input, output, output, packed, by, NULL, 2, EP_CLAMPED);
}

void EP(depthwise_stride_1_added)(const int8_t *input, int8_t *output, const int32_t *packed,
                                  const struct EP(sliding) *by, const int8_t *other,
                                  const struct EP(addition) *addition)
{
    const struct EP(addition) of = *addition;
    EP(slide_all)(input, output, other, packed, by, &of, 1, EP_ADDED);
}

void EP(depthwise_stride_2_added)(const int8_t *input, int8_t *output, const int32_t *packed,
                                  const struct EP(sliding) *by, const int8_t *other,
                                  const struct EP(addition) *addition)
{
    const struct EP(addition) of = *addition;
    EP(slide_all)(input, output, other, packed, by, &of, 2, EP_ADDED);
}
