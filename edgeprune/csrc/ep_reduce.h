/* Sums, means, maxima and minima over any axes. */
#ifndef EP_REDUCE_H
#define EP_REDUCE_H

#include "ep_base.h"

/* Outputs are kept[0] x kept[1] x kept[2] x inner, each made of reduced[0] x reduced[1] x reduced[2] values of the
 * input. Steps are in values; neighbours of the inner axis are neighbours in the input. */
struct EP(reduction) {
    int32_t kept[3], kept_step[3], reduced[3], reduced_step[3];
    int32_t inner;
    int32_t offset;            /* added to the sums: less the input's zero point times their terms */
    int32_t multiplier, shift; /* as of `EP(rescale)` */
    int32_t output_zero;
};

void EP(reduce)(const int8_t *input, int8_t *output, const struct EP(reduction) *by);

/* Of these nothing below `inner` is used. */
void EP(greatest)(const int8_t *input, int8_t *output, const struct EP(reduction) *by);
void EP(least)(const int8_t *input, int8_t *output, const struct EP(reduction) *by);

#endif
