/* The int8 addition of two tensors of one shape, value by value, for a kernel's epilogue.
 *
 * The specification shifts both summands left by 20, rescales each to twice the larger scale, adds, and rescales the sum.
 * One of them, the wide one, has the larger scale: its factor is exactly 1/2, so that it is shifted by 19 and no more.
 */
#ifndef EP_ADD_H
#define EP_ADD_H

#include "ep_base.h"

/* See `edgeprune/backends/c/addition.py`, which makes these. */
struct EP(addition) {
    int32_t computed_is_wide;  /* the kernel's own result is the wide summand, else the tensor added to it is */
    int32_t narrow_offset;     /* -2^21 * zero point of the narrow summand */
    int32_t narrow_multiplier; /* 2^30 to 2^31 - 1, or 0 */
    int32_t narrow_half;       /* 2^(narrow_shift - 1) */
    int32_t narrow_shift;      /* 1 to 31 */
    int32_t wide_offset;       /* -2^20 * zero point of the wide summand */
    int32_t multiplier, half, shift; /* of the sum, as of the narrow summand */
    int32_t zero, low, high;         /* of the output: zero point, clamps */
};

/* a * b / 2^32, halves rounded up, + c. With a twice a sum this is its rounding doubling high product. */
static inline int32_t EP(high_product_plus)(int32_t a, int32_t b, int32_t c)
{
#if EP_DSP
    int32_t high;
    __asm__("smmlar %0, %1, %2, %3" : "=r"(high) : "r"(a), "r"(b), "r"(c));
    return high;
#else
    return (int32_t)(((int64_t)a * b + ((int64_t)1 << 31)) >> 32) + c;
#endif
}

/* Twice a sum, |doubled| < 2^30 * 2, times multiplier / 2^32, then divided by 2^shift, halves away from zero.
 *
 * Half a step is added with the high product; one less where the sum is negative, whose halves go down. Where a negative
 * sum's high product is 0, half - 1 makes 0 as half does.
 */
static inline int32_t EP(rescaled)(int32_t doubled, int32_t multiplier, int32_t half, int32_t shift)
{
    return (EP(high_product_plus)(doubled, multiplier, half) + (doubled >> 31)) >> shift;
}

/* Both int8 values. Ranges: the narrow one's product is at most 255 * 2^21, twice the sum at most 255 * 2^21. */
static inline int8_t EP(added_wide)(int32_t wide, int32_t narrow, const struct EP(addition) *by)
{
    const int32_t scaled = EP(rescaled)(narrow * (1 << 21) + by->narrow_offset, by->narrow_multiplier, by->narrow_half,
                                        by->narrow_shift);
    const int32_t doubled = wide * (1 << 20) + by->wide_offset + scaled * 2;
    return EP(clamped)(EP(rescaled)(doubled, by->multiplier, by->half, by->shift) + by->zero, by->low, by->high);
}

/* The sum of what a kernel computed and of the tensor added to it. */
static inline int8_t EP(added)(int32_t computed, int32_t other, const struct EP(addition) *by)
{
    return by->computed_is_wide ? EP(added_wide)(computed, other, by) : EP(added_wide)(other, computed, by);
}

/* `count` sums; output may be either summand. */
static inline void EP(add_run)(const int8_t *computed, const int8_t *other, int8_t *output, int32_t count,
                               const struct EP(addition) *by)
{
    const struct EP(addition) fixed = *by; /* a copy that no store can change stays in registers */
    const int8_t *wide = fixed.computed_is_wide ? computed : other;
    const int8_t *narrow = fixed.computed_is_wide ? other : computed;
    for (int32_t i = 0; i < count; ++i) {
        output[i] = EP(added_wide)(wide[i], narrow[i], &fixed);
    }
}

#endif
