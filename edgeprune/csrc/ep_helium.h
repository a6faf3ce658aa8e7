/* Lanes of a core with Helium (MVE of integers), which several kernels share; nothing where there is none.
 *
 * The loops over bytes are in assembly: as many lanes take part in their last turn as bytes are left (dlstp, letp), so
 * that none beyond is read, and compilers make neither these loops nor their registers of intrinsics.
 */
#ifndef EP_HELIUM_H
#define EP_HELIUM_H

#include "ep_add.h"
#include "ep_base.h"

#if EP_MVE

#include <arm_mve.h>

/* Four numbers as lanes 0 to 3. */
static inline int32x4_t EP(lanes_of)(int32_t a, int32_t b, int32_t c, int32_t d)
{
    int32x4_t lanes;
    __asm__("vmov %q0[2], %q0[0], %1, %3\n\tvmov %q0[3], %q0[1], %2, %4" : "=&w"(lanes) : "r"(a), "r"(b), "r"(c), "r"(d));
    return lanes;
}

/* Adds the products of the column `x` with four rows of weights, `depth` bytes apart from `rows` on, to four sums. */
static inline int32x4_t EP(dot_four)(const int8_t *x, const int8_t *rows, int32_t depth, const int32_t *sums)
{
    int32_t a = sums[0], b = sums[1], c = sums[2], d = sums[3];
    const int8_t *second = rows + depth, *third = second + depth, *fourth = third + depth;
    __asm__ volatile("dlstp.8 lr, %[count]\n"
                     "1:\n\t"
                     "vldrb.8 q0, [%[at_x]], #16\n\t"
                     "vldrb.8 q1, [%[at_a]], #16\n\t"
                     "vmladava.s8 %[sum_a], q0, q1\n\t"
                     "vldrb.8 q2, [%[at_b]], #16\n\t"
                     "vmladava.s8 %[sum_b], q0, q2\n\t"
                     "vldrb.8 q1, [%[at_c]], #16\n\t"
                     "vmladava.s8 %[sum_c], q0, q1\n\t"
                     "vldrb.8 q2, [%[at_d]], #16\n\t"
                     "vmladava.s8 %[sum_d], q0, q2\n\t"
                     "letp lr, 1b"
                     : [sum_a] "+Te"(a), [sum_b] "+Te"(b), [sum_c] "+Te"(c), [sum_d] "+Te"(d), [at_x] "+r"(x),
                       [at_a] "+r"(rows), [at_b] "+r"(second), [at_c] "+r"(third), [at_d] "+r"(fourth)
                     : [count] "r"(depth)
                     : "q0", "q1", "q2", "lr", "memory");
    return EP(lanes_of)(a, b, c, d);
}

/* A sum and the products of a row of weights with a column. */
static inline int32_t EP(dot_one)(const int8_t *x, const int8_t *row, int32_t depth, int32_t sum)
{
    __asm__ volatile("dlstp.8 lr, %[count]\n"
                     "1:\n\t"
                     "vldrb.8 q0, [%[at_x]], #16\n\t"
                     "vldrb.8 q1, [%[at_row]], #16\n\t"
                     "vmladava.s8 %[sum], q0, q1\n\t"
                     "letp lr, 1b"
                     : [sum] "+Te"(sum), [at_x] "+r"(x), [at_row] "+r"(row)
                     : [count] "r"(depth)
                     : "q0", "q1", "lr", "memory");
    return sum;
}

/* What `EP(rescale)` makes of each lane. Where shifts to the right round, halves go away from zero: vrshl rounds them up,
 * so that products below zero are lessened by one, which changes what is half way and nothing else. */
static inline int32x4_t EP(rescale_lanes)(int32x4_t sums, int32x4_t multipliers, int32x4_t shifts)
{
    const int32x4_t none = vdupq_n_s32(0), right = vminq_s32(shifts, none);
    const int32x4_t high = vqrdmulhq_s32(vshlq_s32(sums, vmaxq_s32(shifts, none)), multipliers);
    const int32x4_t below = vshrq_n_s32(vandq_s32(high, right), 31); /* right is below zero where it rounds */
    return vrshlq_s32(vaddq_s32(high, below), right);
}

/* The same for shifts of -31 to -1 alone. Where a sum below zero has a product of 0, that less one makes 0 as well. */
static inline int32x4_t EP(rescale_lanes_down)(int32x4_t sums, int32x4_t multipliers, int32x4_t shifts)
{
    const int32x4_t high = vqrdmulhq_s32(sums, multipliers);
    return vrshlq_s32(vaddq_s32(high, vshrq_n_s32(sums, 31)), shifts);
}

static inline int32x4_t EP(clamp_lanes)(int32x4_t values, int32x4_t low, int32x4_t high)
{
    return vminq_s32(vmaxq_s32(values, low), high);
}

/* `EP(added_wide)` of each lane: halves of its doubled sums, which vqrdmulh doubles. */
static inline int32x4_t EP(add_wide_lanes)(int32x4_t wide, int32x4_t narrow, const struct EP(addition) *by)
{
    const int32x4_t small = vaddq_n_s32(vshlq_n_s32(narrow, 20), by->narrow_offset / 2);
    const int32x4_t less = vqrdmlahq_n_s32(vshrq_n_s32(small, 31), small, by->narrow_multiplier);
    const int32x4_t scaled = vrshlq_n_s32(less, -by->narrow_shift);
    const int32x4_t sum = vaddq_s32(vaddq_n_s32(vshlq_n_s32(wide, 19), by->wide_offset / 2), scaled);
    const int32x4_t below = vqrdmlahq_n_s32(vshrq_n_s32(sum, 31), sum, by->multiplier);
    return vaddq_n_s32(vrshlq_n_s32(below, -by->shift), by->zero);
}

static inline int32x4_t EP(add_lanes_of)(int32x4_t computed, int32x4_t other, const struct EP(addition) *by)
{
    return by->computed_is_wide ? EP(add_wide_lanes)(computed, other, by) : EP(add_wide_lanes)(other, computed, by);
}

/* `count` sums; output may be either summand. */
static inline void EP(add_run_lanes)(const int8_t *computed, const int8_t *other, int8_t *output, int32_t count,
                                     const struct EP(addition) *by)
{
    const struct EP(addition) fixed = *by; /* a copy that no store can change stays in registers */
    const int8_t *wide = fixed.computed_is_wide ? computed : other;
    const int8_t *narrow = fixed.computed_is_wide ? other : computed;
    const int32x4_t low = vdupq_n_s32(fixed.low), high = vdupq_n_s32(fixed.high);
    for (; count >= 4; count -= 4, wide += 4, narrow += 4, output += 4) {
        const int32x4_t sum = EP(add_wide_lanes)(vldrbq_s32(wide), vldrbq_s32(narrow), &fixed);
        vstrbq_s32(output, EP(clamp_lanes)(sum, low, high));
    }
    for (; count > 0; --count) {
        *output++ = EP(added_wide)(*wide++, *narrow++, &fixed);
    }
}

#endif
#endif
