/* Products of batches of matrices, both computed. */
#ifndef EP_MATMUL_H
#define EP_MATMUL_H

#include "ep_base.h"

/* For each of `batches`: out (rows, columns) = a (rows, depth) times b (depth, columns), rescaled and saturated.
 *
 * offsets: where the matrices of a batch start in a and b, pairs
 * shape: rows, columns, depth; steps of a along rows and depth; steps of b along columns and depth
 * factors: zero points of a, b and the result, multiplier, shift
 */
void EP(batch_matmul)(const int8_t *a, const int8_t *b, int8_t *out, const int32_t *offsets, int32_t batches,
                      const int32_t *shape, const int32_t *factors);

#endif
