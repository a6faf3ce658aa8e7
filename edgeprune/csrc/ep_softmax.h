/* Softmax over the innermost axis. */
#ifndef EP_SOFTMAX_H
#define EP_SOFTMAX_H

#include "ep_base.h"

/* Rows of `depth` int8 values, 1 to 4095, to probabilities with scale 1/256 and zero point -128; out may be in.
 *
 * exponentials: exp of 0, -1, -2, ... input steps with 31 fraction bits, `count` of them; what lies lower counts as 0
 */
void EP(softmax)(const int8_t *in, int8_t *out, const int32_t *exponentials, int32_t count, int32_t rows, int32_t depth);

#endif
