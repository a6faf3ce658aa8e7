/* Element by element functions: tables over all inputs of 8 bits, clamps, changes of scale. */
#ifndef EP_TABLE_H
#define EP_TABLE_H

#include "ep_base.h"

/* out[i] = table[in[i] as an unsigned byte], `count` values; out may be in. */
void EP(look_up)(const void *in, void *out, const void *table, int32_t count);

/* As above with results of 16 bits. */
void EP(look_up_16)(const void *in, int16_t *out, const int16_t *table, int32_t count);

/* out[i] = in[i] held to [low, high], `count` values; out may be in. */
void EP(clamp_all)(const int8_t *in, int8_t *out, int32_t low, int32_t high, int32_t count);

/* out[i] = (in[i] - zero_in) * multiplier * 2^(shift - 31) + zero_out, saturated; shift at most 14. */
void EP(requantize_16)(const int16_t *in, int16_t *out, const int32_t *factors, int32_t count);
void EP(requantize_16_to_8)(const int16_t *in, int8_t *out, const int32_t *factors, int32_t count);

#endif
