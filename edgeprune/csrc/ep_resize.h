/* Bilinear resizing of (batches, height, width, channels). */
#ifndef EP_RESIZE_H
#define EP_RESIZE_H

#include "ep_base.h"

/* rows, columns: for each of the result, offsets of the two source pixels between which it lies and how far it is from
 * the first, in 1024ths (may be negative where both are one); row_count and column_count of these triples
 */
void EP(resize_bilinear)(const int8_t *in, int8_t *out, const int32_t *rows, int32_t row_count, const int32_t *columns,
                         int32_t column_count, int32_t batches, int32_t batch_size, int32_t channels);

#endif
