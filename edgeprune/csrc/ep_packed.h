/* Rows of weights packed for cores with the DSP instructions, and how they meet a column of int16 values.
 *
 * In assembly, since compilers spill here and never keep a block's loads paired. A column is in fours of values: a word of
 * values 0 and 2, then one of values 1 and 3, the way sxtb16 makes them.
 */
#ifndef EP_PACKED_H
#define EP_PACKED_H

#include "ep_add.h"
#include "ep_base.h"

/* Rows in blocks of four.
 *
 * A block is four starts of sums (int32) and then, for every four values of a column, two words for values 0 and 2 and
 * two for values 1 and 3: a word holds in each half 256 * b + a, weights of a value in two adjacent rows, a of the first.
 * Products with the halves sum up to 256 * B + A; A itself is summed from the sign-extended low bytes, and the difference
 * is 256 * B modulo 2^32, exact where |B| < 2^23. Every second sum thus starts from 256 * start of B + start of A.
 *
 * Rescaling: the high half of the doubled sum's product, half a step and the zero point added with it, then a shift.
 * Convolutions round both times (smmlar, and one less below zero, whose halves go down, unless all that is below zero is
 * clamped to it), fully connected layers only the second time (smmla). For sums below 2^30 and shifts of 1 to 22.
 */
struct EP(packed_rows) {
    const int8_t *weights;     /* (blocks, 16 + 16 * steps) bytes, aligned to 4 */
    const int8_t *weights_end; /* behind the last block */
    const int32_t *rescales;   /* (4 * blocks or 4, 3): multiplier, half + (zero << shift), shift */
    int32_t rescales_step;     /* 0, or -48 where all blocks share the rescales of one */
    int32_t steps;             /* values of a column / 4, rounded up */
};

/* Four bytes from any address, the first one lowest (all targets are little-endian). */
static inline uint32_t EP(load_word)(const int8_t *from)
{
    uint32_t word;
    __builtin_memcpy(&word, from, 4);
    return word;
}

/* Bytes 0 and 2 of a word as int16 halves, and bytes 1 and 3. */
static inline int32_t EP(even_bytes)(uint32_t word)
{
#if EP_DSP
    int32_t halves;
    __asm__("sxtb16 %0, %1" : "=r"(halves) : "r"(word));
    return halves;
#else
    const uint32_t low = (uint32_t)(int32_t)(int8_t)word & 0xffffu;
    return (int32_t)(low | (uint32_t)(int32_t)(int8_t)(word >> 16) << 16);
#endif
}

static inline int32_t EP(odd_bytes)(uint32_t word)
{
#if EP_DSP
    int32_t halves;
    __asm__("sxtb16 %0, %1, ror #8" : "=r"(halves) : "r"(word));
    return halves;
#else
    return EP(even_bytes)(word >> 8);
#endif
}

/* Widens `count` values, a multiple of 4, into every `apart`-th word; returns where the next ones go. */
static inline int32_t *EP(widen)(int32_t *to, const int8_t *from, int32_t count, int32_t apart)
{
    for (; count > 0; count -= 4, from += 4, to += 2 * apart) {
        const uint32_t word = EP(load_word)(from);
        to[0] = EP(even_bytes)(word);
        to[apart] = EP(odd_bytes)(word);
    }
    return to;
}

#if EP_DSP

/* Offsets in `packed_rows`, as assembly sees them: weights 0, weights_end 4, rescales 8, rescales_step 12, steps 16. */

/* A sum in `sum`, doubled by `doubling`, becomes an int8 result. r1 is at multiplier, half and shift of the row. */
#define EP_LOAD_RESCALE "ldm    r1!, {r2, r3, r12}\n"
#define EP_RESCALE_TWICE(doubling, sum)                                                                                \
    doubling "\n"                                                                                                      \
    "smmlar lr, lr, r2, r3\n"                                                                                          \
    "add    " sum ", lr, " sum ", asr #31\n"                                                                           \
    "asr    " sum ", " sum ", r12\n"                                                                                   \
    "ssat   " sum ", #8, " sum "\n"
#define EP_RESCALE_POSITIVE(doubling, sum)                                                                             \
    doubling "\n"                                                                                                      \
    "smmlar lr, lr, r2, r3\n"                                                                                          \
    "asr    " sum ", lr, r12\n"                                                                                        \
    "ssat   " sum ", #8, " sum "\n"
#define EP_RESCALE_ONCE(doubling, sum)                                                                                 \
    doubling "\n"                                                                                                      \
    "smmla  lr, lr, r2, r3\n"                                                                                          \
    "asr    " sum ", lr, r12\n"                                                                                        \
    "ssat   " sum ", #8, " sum "\n"
#define EP_FIRST(rescale, sum) rescale("lsl    lr, " sum ", #1", sum)
#define EP_SECOND(rescale, sum) rescale("asr    lr, " sum ", #7", sum)

/* Sums of rows 0 to 3 in r4, r6, r8, r10; r0 weights, r1 column. */
#define EP_ONE_STEP                                                                                                    \
    "ldm.w  r0!, {r2, r3, r5, r7}\n"                                                                                   \
    "ldrd   r12, lr, [r1], #8\n"                                                                                       \
    "smlad  r6, r2, r12, r6\n"                                                                                         \
    "sxtb16 r2, r2\n"                                                                                                  \
    "smlad  r10, r3, r12, r10\n"                                                                                       \
    "sxtb16 r3, r3\n"                                                                                                  \
    "smlad  r4, r2, r12, r4\n"                                                                                         \
    "smlad  r8, r3, r12, r8\n"                                                                                         \
    "smlad  r6, r5, lr, r6\n"                                                                                          \
    "sxtb16 r5, r5\n"                                                                                                  \
    "smlad  r10, r7, lr, r10\n"                                                                                        \
    "sxtb16 r7, r7\n"                                                                                                  \
    "smlad  r4, r5, lr, r4\n"                                                                                          \
    "smlad  r8, r7, lr, r8\n"

/* The body of a function of column (2 * steps), output and rows.
 *
 * r9 end of the column, r11 where the loop is entered: so far in that the number of steps comes out right. Stack: 0
 * column, 4 end of the weights, 8 output, 12 rescales, 16 step of the rescales.
 */
#define EP_MULTIPLY_ONE(rescale)                                                                                       \
    ".syntax unified\n"                                                                                                \
    "push   {r4-r11, lr}\n"                                                                                            \
    "sub    sp, sp, #20\n"                                                                                             \
    "ldr    r4, [r2, #16]\n"                                                                                           \
    "add    r9, r0, r4, lsl #3\n"                                                                                      \
    "rsb    r4, r4, #0\n"                                                                                              \
    "and    r4, r4, #3\n"                                                                                              \
    "movs   r6, #56\n"                                                                                                 \
    "mul    r6, r6, r4\n"                                                                                              \
    "adr.w  r7, 2f\n"                                                                                                  \
    "add    r11, r6, r7\n"                                                                                             \
    "ldr    r4, [r2, #4]\n"                                                                                            \
    "strd   r0, r4, [sp]\n"                                                                                            \
    "ldrd   r4, r5, [r2, #8]\n"                                                                                        \
    "strd   r1, r4, [sp, #8]\n"                                                                                        \
    "str    r5, [sp, #16]\n"                                                                                           \
    "ldr    r0, [r2]\n"                                                                                                \
    "1:\n"                                                                                                             \
    "ldr    r1, [sp]\n"                                                                                                \
    "ldm    r0!, {r4, r6, r8, r10}\n"                                                                                  \
    "mov    pc, r11\n"                                                                                                 \
    ".balign 4\n"                                                                                                      \
    "2:\n"                                                                                                             \
    EP_ONE_STEP                                                                                                        \
    EP_ONE_STEP                                                                                                        \
    EP_ONE_STEP                                                                                                        \
    EP_ONE_STEP                                                                                                        \
    "cmp    r1, r9\n"                                                                                                  \
    "bne.w  2b\n"                                                                                                      \
    "ldr    r1, [sp, #12]\n"                                                                                           \
    "sub    r6, r6, r4\n"                                                                                              \
    "sub    r10, r10, r8\n"                                                                                            \
    EP_LOAD_RESCALE                                                                                                    \
    EP_FIRST(rescale, "r4")                                                                                            \
    EP_LOAD_RESCALE                                                                                                    \
    EP_SECOND(rescale, "r6")                                                                                           \
    EP_LOAD_RESCALE                                                                                                    \
    EP_FIRST(rescale, "r8")                                                                                            \
    EP_LOAD_RESCALE                                                                                                    \
    EP_SECOND(rescale, "r10")                                                                                          \
    "ldrd   r2, r3, [sp, #4]\n"                                                                                        \
    "ldr    r5, [sp, #16]\n"                                                                                           \
    "add    r1, r1, r5\n"                                                                                              \
    "strb   r4, [r3], #1\n"                                                                                            \
    "strb   r6, [r3], #1\n"                                                                                            \
    "strb   r8, [r3], #1\n"                                                                                            \
    "strb   r10, [r3], #1\n"                                                                                           \
    "strd   r3, r1, [sp, #8]\n"                                                                                        \
    "cmp    r0, r2\n"                                                                                                  \
    "bne.w  1b\n"                                                                                                      \
    "add    sp, sp, #20\n"                                                                                             \
    "pop    {r4-r11, pc}\n"

#else

/* The sum of products of both halves; it wraps. */
static inline uint32_t EP(dual_product)(int32_t a, int32_t b)
{
    const int32_t low = (int16_t)a * (int16_t)b;
    const int32_t high = (int16_t)((uint32_t)a >> 16) * (int16_t)((uint32_t)b >> 16);
    return (uint32_t)low + (uint32_t)high;
}

static inline int8_t EP(packed_result)(int32_t doubled, const int32_t *rescale, int is_once)
{
    const int32_t once = (int32_t)(((int64_t)doubled * rescale[0] >> 32) + rescale[1]) >> rescale[2];
    const int32_t twice = EP(rescaled)(doubled, rescale[0], rescale[1], rescale[2]);
    return EP(clamped)(is_once ? once : twice, -128, 127);
}

/* All rows at one of columns that lie `apart` words apart: what the instructions do, for a host. */
static inline void EP(multiply_packed)(const int32_t *column, int32_t apart, int8_t *output,
                                       const struct EP(packed_rows) *rows, int is_once)
{
    const int32_t *rescale = rows->rescales;
    for (const int8_t *weights = rows->weights; weights != rows->weights_end; rescale += rows->rescales_step / 4) {
        uint32_t sums[4];
        for (int32_t i = 0; i < 4; ++i, weights += 4) {
            sums[i] = EP(load_word)(weights);
        }
        for (int32_t i = 0; i < 2 * rows->steps; ++i, weights += 8) {
            for (int32_t j = 0; j < 4; j += 2) {
                const uint32_t word = EP(load_word)(weights + 2 * j);
                sums[j] += EP(dual_product)(EP(even_bytes)(word), column[i * apart]);
                sums[j + 1] += EP(dual_product)((int32_t)word, column[i * apart]);
            }
        }
        for (int32_t j = 0; j < 4; j += 2, output += 2, rescale += 6) {
            output[0] = EP(packed_result)((int32_t)(sums[j] * 2), rescale, is_once);
            output[1] = EP(packed_result)((int32_t)(sums[j + 1] - sums[j]) >> 7, rescale + 3, is_once);
        }
    }
}

#endif

#endif
