/* Kernels that move values of any format without a change. Nothing overlaps; sizes and steps are bytes. */
#ifndef EP_LAYOUT_H
#define EP_LAYOUT_H

#include "ep_base.h"

enum { EP_MOST_AXES = 8 };

void EP(copy)(const void *from, void *to, int32_t bytes);

/* Fills `count` elements of 1, 2, 4 or 8 bytes with the one at `value`. */
void EP(fill)(void *to, const void *value, int32_t element_bytes, int32_t count);

/* Copies runs of `run` bytes along `rank` axes, 1 to EP_MOST_AXES of them.
 *
 * axes: for each axis, outermost first, its size and its steps in the source and in the target (may be negative)
 */
void EP(copy_strided)(const void *from, void *to, const int32_t *axes, int32_t rank, int32_t run);

/* Copies runs of `run` bytes picked along two axes of `blocks` blocks of `block_bytes`, in the order of the target.
 *
 * rows, columns: offsets in the block; their sums are where the runs start
 */
void EP(gather)(const void *from, void *to, int32_t blocks, int32_t block_bytes, const int32_t *rows, int32_t row_count,
                const int32_t *columns, int32_t column_count, int32_t run);

#endif
