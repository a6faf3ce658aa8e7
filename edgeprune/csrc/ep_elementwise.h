/* Functions of two int8 tensors value by value, broadcast or not: sums, products, maxima and the like. */
#ifndef EP_ELEMENTWISE_H
#define EP_ELEMENTWISE_H

#include "ep_base.h"

struct EP(addition); /* in ep_add.h */

/* How two tensors make the output, which is written in order: loops, and in each a run of neighbours. Steps are in
 * values, 0 where a tensor is repeated; within the run 0 or 1. */
struct EP(broadcast) {
    int32_t sizes[4], first_steps[4], second_steps[4];
    int32_t run, first_step, second_step;
};

struct EP(product) {
    int32_t first_offset, second_offset; /* less the zero points */
    int32_t power;                       /* twice the left shift's: products times it are below 2^31 */
    int32_t multiplier;                  /* 2^30 to 2^31 - 1, or 0 */
    int32_t offset;                      /* half a step and the output's zero point, both times 2^shift */
    int32_t is_rounded;                  /* -1 where there is a shift to the right to round, else 0 */
    int32_t shift, low, high;            /* to the right, 0 to 22; clamps of the output */
};

/* Multipliers and shifts are as of `EP(rescale)`. */
struct EP(squared) {
    int32_t first_zero, second_zero;
    int32_t first_multiplier, first_shift;   /* of values times 128, to twice the larger scale; the shift is not */
    int32_t second_multiplier, second_shift; /* to the left */
    int32_t multiplier, shift;               /* of the square, at most 1 to the left */
    int32_t output_zero;
};

struct EP(prelu) {
    int32_t zero, slope_zero;
    int32_t multiplier, shift;             /* of what is not negative */
    int32_t slope_multiplier, slope_shift; /* of what is negative times its slope */
    int32_t output_zero;
};

/* The output may lie over a tensor that is not repeated. A sum or difference is as `EP(addition)` says, the first tensor
 * being the computed one. */
void EP(add)(const int8_t *first, const int8_t *second, int8_t *output, const struct EP(broadcast) *over,
             const struct EP(addition) *by);
void EP(subtract)(const int8_t *first, const int8_t *second, int8_t *output, const struct EP(broadcast) *over,
                  const struct EP(addition) *by);
void EP(multiply)(const int8_t *first, const int8_t *second, int8_t *output, const struct EP(broadcast) *over,
                  const struct EP(product) *by);
/* (first - second)^2 */
void EP(squared_difference)(const int8_t *first, const int8_t *second, int8_t *output, const struct EP(broadcast) *over,
                            const struct EP(squared) *by);
/* first where that is not negative, else first * second */
void EP(prelu)(const int8_t *first, const int8_t *second, int8_t *output, const struct EP(broadcast) *over,
               const struct EP(prelu) *by);
void EP(maximum)(const int8_t *first, const int8_t *second, int8_t *output, const struct EP(broadcast) *over);
void EP(minimum)(const int8_t *first, const int8_t *second, int8_t *output, const struct EP(broadcast) *over);

#endif
