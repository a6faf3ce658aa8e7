/* Pools: of each channel the average or the maximum of the values in a window; padding takes no part. */
#ifndef EP_POOL_H
#define EP_POOL_H

#include "ep_windows.h"

struct EP(pool) {
    int32_t batches, channels;
    struct EP(windows) height, width; /* dilations are 1 */
    int32_t low, high;                /* clamps of the output */
};

/* Input (batches, height, width, channels) and output alike, both of one scale and zero point. Averages are rounded to
 * the nearest, halves away from zero. */
void EP(average_pool)(const int8_t *input, int8_t *output, const struct EP(pool) *by);
void EP(max_pool)(const int8_t *input, int8_t *output, const struct EP(pool) *by);

#endif
