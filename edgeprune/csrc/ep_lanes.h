/* Sums and maxima of four neighbouring int8 values at once, for kernels that go over positions and keep channels. */
#ifndef EP_LANES_H
#define EP_LANES_H

#include "ep_helium.h"
#include "ep_packed.h"
#include "ep_patch.h"

#define EP_LANES_MOST 255 /* words that may be summed: 255 * 128 < 2^15, 255 * 255 < 2^16 */

/* Sums of bytes 0 and 2 and of bytes 1 and 3, in halves. Without DSP instructions of the bytes + 128, so that no sum
 * borrows from its neighbour. */
struct EP(lanes) {
    uint32_t even, odd;
};

static inline struct EP(lanes) EP(lanes_plus)(struct EP(lanes) lanes, uint32_t word)
{
#if EP_DSP
    __asm__("sxtab16 %0, %0, %1" : "+r"(lanes.even) : "r"(word));
    __asm__("sxtab16 %0, %0, %1, ror #8" : "+r"(lanes.odd) : "r"(word));
#else
    const uint32_t raised = word ^ 0x80808080u;
    lanes.even += raised & 0x00ff00ffu;
    lanes.odd += (raised >> 8) & 0x00ff00ffu;
#endif
    return lanes;
}

/* `count` words, `step` bytes apart. */
static inline struct EP(lanes) EP(lanes_over)(struct EP(lanes) lanes, const int8_t *from, int32_t count, int32_t step)
{
    for (; count > 0; --count, from += step) {
        lanes = EP(lanes_plus)(lanes, EP(load_word)(from));
    }
    return lanes;
}

/* Adds the four sums of `count` words to `sums`. */
static inline void EP(add_lanes)(int32_t *sums, struct EP(lanes) lanes, int32_t count)
{
#if EP_DSP
    (void)count;
    sums[0] += (int16_t)(uint16_t)lanes.even;
    sums[1] += (int16_t)(uint16_t)lanes.odd;
    sums[2] += (int32_t)lanes.even >> 16;
    sums[3] += (int32_t)lanes.odd >> 16;
#else
    sums[0] += (int32_t)(lanes.even & 0xffffu) - 128 * count;
    sums[1] += (int32_t)(lanes.odd & 0xffffu) - 128 * count;
    sums[2] += (int32_t)(lanes.even >> 16) - 128 * count;
    sums[3] += (int32_t)(lanes.odd >> 16) - 128 * count;
#endif
}

#if EP_MVE

/* Adds four neighbouring values at each of lines * count places to `sums`. */
static inline void EP(sum_places)(int32_t *sums, const int8_t *from, int32_t lines, int32_t line, int32_t count,
                                  int32_t step)
{
    int32x4_t lanes = vldrwq_s32(sums);
    for (; lines > 0; --lines, from += line) {
        const int8_t *at = from;
        for (int32_t left = count; left > 0; --left, at += step) {
            lanes = vaddq_s32(lanes, vldrbq_s32(at));
        }
    }
    vstrwq_s32(sums, lanes);
}

#else

/* Adds four neighbouring values at each of lines * count places to `sums`. */
static inline void EP(sum_places)(int32_t *sums, const int8_t *from, int32_t lines, int32_t line, int32_t count,
                                  int32_t step)
{
    struct EP(lanes) lanes = {0, 0};
    int32_t held = 0;
    for (; lines > 0; --lines, from += line) {
        const int8_t *at = from;
        for (int32_t left = count; left > 0;) {
            const int32_t room = EP_LANES_MOST - held, taken = left < room ? left : room;
            lanes = EP(lanes_over)(lanes, at, taken, step);
            at += taken * step;
            left -= taken;
            held += taken;
            if (held == EP_LANES_MOST) {
                EP(add_lanes)(sums, lanes, held);
                lanes.even = lanes.odd = 0;
                held = 0;
            }
        }
    }
    EP(add_lanes)(sums, lanes, held);
}

#endif

/* The sum of the value at each of lines * count places. */
static inline int32_t EP(sum_of_places)(const int8_t *from, int32_t lines, int32_t line, int32_t count, int32_t step)
{
    int32_t sum = 0;
    for (; lines > 0; --lines, from += line) {
        const int8_t *at = from;
        for (int32_t left = count; left > 0; --left, at += step) {
            sum += *at;
        }
    }
    return sum;
}

#if EP_DSP
/* The larger one of each two bytes. */
static inline uint32_t EP(max_of_bytes)(uint32_t a, uint32_t b)
{
    uint32_t larger;
    __asm__("ssub8 %0, %1, %2\n\tsel %0, %1, %2" : "=&r"(larger) : "r"(a), "r"(b) : "cc");
    return larger;
}

/* The smaller one of each two bytes. */
static inline uint32_t EP(min_of_bytes)(uint32_t a, uint32_t b)
{
    uint32_t smaller;
    __asm__("ssub8 %0, %1, %2\n\tsel %0, %2, %1" : "=&r"(smaller) : "r"(a), "r"(b) : "cc");
    return smaller;
}
#endif

#endif
