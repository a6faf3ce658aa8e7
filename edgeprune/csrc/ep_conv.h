/* Convolutions: rows of weights times columns of input values.
 *
 * A column is the patch of one output pixel, a row is the weights of one output channel; their sum
 * of products, the bias and a rescaling make one int8 output. The input's zero point is folded into the bias.
 */
#ifndef EP_CONV_H
#define EP_CONV_H

#include "ep_add.h"
#include "ep_base.h"
#include "ep_packed.h"
#include "ep_patch.h"

/* The rows of one group, for any core. */
struct EP(plain_rows) {
    const int8_t *weights;   /* (rows, depth) */
    const int32_t *sums;     /* (rows): what each sum starts from */
    const int32_t *rescales; /* (rows or 4, 2): multiplier and shift, as `EP(rescale)` takes them */
    int32_t rescales_step;   /* 2, or 0 where all rows share one */
    int32_t rows, depth;     /* output channels of the group; values of a column */
    int32_t zero, low, high; /* of the output */
    int32_t shifts_down;     /* whether all shifts are -31 to -1 */
};

/* What becomes of the rows' results. */
struct EP(results) {
    int32_t rows, channels;            /* output channels of the group and in all */
    int32_t low, high;                 /* clamps; -128 and 127 are none */
    const struct EP(addition) *adding; /* what adds another tensor to them, or null */
};

/* Results of all rows at two columns: columns (2 * steps, 2) holds of each a word of values 0 and 2, then one of 1 and 3;
 * output (2, distance), of which the blocks' four bytes each are written.
 */
typedef void EP(pair_kernel)(const int32_t *columns, int8_t *output, const struct EP(packed_rows) *rows,
                             int32_t distance);
EP(pair_kernel) EP(multiply_pair);
/* Where results below the zero point are clamped to it, so that how they are rounded does not matter. */
EP(pair_kernel) EP(multiply_pair_positive);

/* input (batches, height, width, channels), output (batches, out_height, out_width, channels); `rows` of each group.
 *
 * scratch: two columns (2 * depth bytes) and, where a tensor is added, results (2 * rows bytes).
 */
void EP(convolve_plain)(const int8_t *input, int8_t *output, int8_t *scratch, const int8_t *other,
                        const struct EP(window) *window, const struct EP(plain_rows) *rows,
                        const struct EP(results) *results, int32_t groups);

/* scratch: two columns of int16 (16 * steps bytes), 8 bytes of results for every 4 rows unless they go straight to the
 * output, what is left of each line of a patch behind its last whole four of values (for both columns, rounded up to
 * fours), and a line of a patch unless all of them lie in the input as they are.
 *
 * A column is the fours of each line, then what is left of each line; so are the weights of a row.
 */
void EP(convolve_packed)(const int8_t *input, int8_t *output, int32_t *scratch, const int8_t *other,
                         const struct EP(window) *window, const struct EP(packed_rows) *rows,
                         const struct EP(results) *results, int32_t groups, EP(pair_kernel) *multiply_pair);

#endif
