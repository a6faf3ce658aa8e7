/* Rows times columns on a core with Helium, for ep_conv.c: products of sixteen bytes at once, added across the lanes.
 *
 * Weights lie as they do for any core. Rows are in fours, whose results are rescaled as the lanes of one register; the last
 * four end at the last row, though some of them are then computed twice.
 */
#ifndef EP_CONV_HELIUM_H
#define EP_CONV_HELIUM_H

#include "ep_conv.h"
#include "ep_helium.h"

#if EP_MVE

/* Adds to the sums in r4 and r6, and in r8 and r12, products of the rows at r2 and r3 with the columns at r0 and r1. */
#define EP_DOT_PAIRS                                                                                                   \
    "dlstp.8  lr, r5\n"                                                                                                \
    "2:\n"                                                                                                             \
    "vldrb.8  q0, [r0], #16\n"                                                                                         \
    "vldrb.8  q2, [r2], #16\n"                                                                                         \
    "vmladava.s8 r4, q0, q2\n"                                                                                         \
    "vldrb.8  q1, [r1], #16\n"                                                                                         \
    "vmladava.s8 r6, q1, q2\n"                                                                                         \
    "vldrb.8  q3, [r3], #16\n"                                                                                         \
    "vmladava.s8 r8, q0, q3\n"                                                                                         \
    "vmladava.s8 r12, q1, q3\n"                                                                                        \
    "letp     lr, 2b\n"

/* Four sums in `sums` become results: what `EP(rescale_lanes_down)` does, the zero point in r0, and the clamps. */
#define EP_RESCALE_FOUR(sums)                                                                                          \
    "vshr.s32 q2, " sums ", #31\n"                                                                                     \
    "vqrdmulh.s32 " sums ", " sums ", q0\n"                                                                            \
    "vadd.i32 " sums ", " sums ", q2\n"                                                                                \
    "vrshl.s32 " sums ", " sums ", q1\n"                                                                               \
    "vadd.i32 " sums ", " sums ", r0\n"                                                                                \
    "vmax.s32 " sums ", " sums ", q6\n"                                                                                \
    "vmin.s32 " sums ", " sums ", q7\n"

/* Fours of rows by two columns, until the output is `end`; shifts are below zero.
 *
 * In assembly, since compilers spill here: rows 0 and 2, then 1 and 3, as two numbers at once go to lanes 0 and 2 or 1 and
 * 3 of a register. The arguments after the fourth lie on the stack, behind 100 bytes of registers that are kept.
 */
EP_NAKED static void multiply_fours(EP_UNUSED const int8_t *weights, EP_UNUSED int32_t depth,
                                    EP_UNUSED const int32_t *sums, EP_UNUSED const int32_t *rescales,
                                    EP_UNUSED int8_t *output, EP_UNUSED int32_t low, EP_UNUSED int32_t high,
                                    EP_UNUSED const int8_t *first, EP_UNUSED const int8_t *second,
                                    EP_UNUSED int32_t zero, EP_UNUSED int32_t distance, EP_UNUSED int8_t *end,
                                    EP_UNUSED int32_t rescales_bytes)
{
    __asm__(".syntax unified\n"
            "push     {r4-r11, lr}\n"
            "vpush    {d8-d15}\n"
            "mov      r10, r0\n"
            "mov      r5, r1\n"
            "mov      r11, r2\n"
            "mov      r9, r3\n"
            "ldr      r7, [sp, #100]\n"
            "ldrd     r0, r1, [sp, #104]\n"
            "vdup.32  q6, r0\n"
            "vdup.32  q7, r1\n"
            "1:\n"
            "ldrd     r0, r1, [sp, #112]\n"
            "mov      r2, r10\n"
            "add      r3, r10, r5, lsl #1\n"
            "ldr      r4, [r11]\n"
            "ldr      r8, [r11, #8]\n"
            "mov      r6, r4\n"
            "mov      r12, r8\n" EP_DOT_PAIRS
            "vmov     q4[2], q4[0], r4, r8\n"
            "vmov     q5[2], q5[0], r6, r12\n"
            "ldrd     r0, r1, [sp, #112]\n"
            "add      r2, r10, r5\n"
            "add      r3, r2, r5, lsl #1\n"
            "add      r10, r10, r5, lsl #2\n"
            "ldr      r4, [r11, #4]\n"
            "ldr      r8, [r11, #12]\n"
            "add      r11, r11, #16\n"
            "mov      r6, r4\n"
            "mov      r12, r8\n" EP_DOT_PAIRS
            "vmov     q4[3], q4[1], r4, r8\n"
            "vmov     q5[3], q5[1], r6, r12\n"
            "vld20.32 {q0, q1}, [r9]\n"
            "vld21.32 {q0, q1}, [r9]\n"
            "ldrd     r0, r1, [sp, #120]\n"
            "ldrd     r2, r3, [sp, #128]\n"
            "add      r9, r9, r3\n"
            "add      r1, r1, r7\n" EP_RESCALE_FOUR("q4") EP_RESCALE_FOUR("q5")
            "vstrb.32 q4, [r7], #4\n"
            "vstrb.32 q5, [r1]\n"
            "cmp      r7, r2\n"
            "bne      1b\n"
            "vpop     {d8-d15}\n"
            "pop      {r4-r11, pc}\n");
}

/* Results of `count` rows, a multiple of four, from row `from` on. */
static void multiply_pair_from(int32_t from, int32_t count, const int8_t *first, const int8_t *second, int8_t *output,
                               int32_t distance, const struct EP(plain_rows) *of)
{
    const int32_t *rescales = of->rescales + from * of->rescales_step;
    multiply_fours(of->weights + from * of->depth, of->depth, of->sums + from, rescales, output + from, of->low,
                   of->high, first, second, of->zero, distance, output + from + count, 16 * of->rescales_step);
}

/* Results of four rows from row `from` on. */
static inline void multiply_four(int32_t from, const int8_t *column, int8_t *output, const struct EP(plain_rows) *of)
{
    const int32x4x2_t rescales = vld2q_s32(of->rescales + from * of->rescales_step);
    const int32x4_t sums = EP(dot_four)(column, of->weights + from * of->depth, of->depth, of->sums + from);
    const int32x4_t rescaled = of->shifts_down ? EP(rescale_lanes_down)(sums, rescales.val[0], rescales.val[1])
                                               : EP(rescale_lanes)(sums, rescales.val[0], rescales.val[1]);
    const int32x4_t results = vaddq_n_s32(rescaled, of->zero);
    vstrbq_s32(output + from, EP(clamp_lanes)(results, vdupq_n_s32(of->low), vdupq_n_s32(of->high)));
}

static void multiply_one(const int8_t *column, int8_t *output, const struct EP(plain_rows) *of)
{
    for (int32_t row = 0; of->rows < 4 && row < of->rows; ++row) {
        const int32_t sum = EP(dot_one)(column, of->weights + row * of->depth, of->depth, of->sums[row]);
        output[row] = result((uint32_t)sum, of->rescales + row * of->rescales_step, of);
    }
    for (int32_t row = 0; row + 4 <= of->rows; row += 4) {
        multiply_four(row, column, output, of);
    }
    if (of->rows > 4 && of->rows % 4 != 0) {
        multiply_four(of->rows - 4, column, output, of);
    }
}

static void multiply_pair(const int8_t *first, const int8_t *second, int8_t *output, int32_t distance,
                          const struct EP(plain_rows) *of)
{
    if (of->rows < 4 || !of->shifts_down) {
        multiply_one(first, output, of);
        multiply_one(second, output + distance, of);
        return;
    }
    multiply_pair_from(0, of->rows / 4 * 4, first, second, output, distance, of);
    if (of->rows % 4 != 0) {
        multiply_pair_from(of->rows - 4, 4, first, second, output, distance, of);
    }
}

#endif
#endif
