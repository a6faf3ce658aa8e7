/* Convolutions and fully connected layers: rows of weights times columns of input values.
 *
 * A column is the patch of one output pixel (or one input vector), a row is the weights of one output channel; their sum
 * of products, the bias and a rescaling make one int8 output. The input's zero point is folded into the bias.
 */
#ifndef EP_CONV_H
#define EP_CONV_H

#include "ep_add.h"
#include "ep_kernels.h"
#include "ep_patch.h"

/* The rows of one group, for any core. */
struct EP(plain_rows) {
    const int8_t *weights;   /* (rows, depth) */
    const int32_t *sums;     /* (rows): what each sum starts from */
    const int32_t *rescales; /* (rows or 1, 2): multiplier and shift, as `EP(rescale)` takes them */
    int32_t rescales_step;   /* 2, or 0 where all rows share one */
    int32_t rows, depth;     /* output channels of the group; values of a column */
    int32_t zero, low, high; /* of the output */
};

/* The rows of one group in blocks of four, for cores with the DSP instructions.
 *
 * A block is four starts of sums (int32) and then, for every four values of a column, two words for values 0 and 2 and
 * two for values 1 and 3: a word holds in each half 256 * b + a, weights of a value in two adjacent rows, a of the first.
 * Products with the halves sum up to 256 * B + A; A itself is summed from the sign-extended low bytes, and the difference
 * is 256 * B modulo 2^32, exact where |B| < 2^23. Every second sum thus starts from 256 * start of B + start of A.
 *
 * Rescaling: smmlar of the doubled sum, half a step and the zero point added with it, one less below zero, then a shift.
 * Exact for sums below 2^30 and shifts of 1 to 22.
 */
struct EP(packed_rows) {
    const int8_t *weights;     /* (blocks, 16 + 16 * steps) bytes, aligned to 4 */
    const int8_t *weights_end; /* behind the last block */
    const int32_t *rescales;   /* (4 * blocks or 4, 3): multiplier, half + (zero << shift), shift */
    int32_t rescales_step;     /* 0, or -48 where all blocks share the rescales of one */
    int32_t steps;             /* values of a column / 4, rounded up */
};

/* What becomes of the rows' results. */
struct EP(results) {
    int32_t rows, channels;            /* output channels of the group and in all */
    int32_t low, high;                 /* clamps; -128 and 127 are none */
    const struct EP(addition) *adding; /* what adds another tensor to them, or null */
};

/* input (batches, height, width, channels), output (batches, out_height, out_width, channels); `rows` of each group.
 *
 * scratch: patches of two columns (2 * depth bytes) unless a patch is one run of bytes, then, where a tensor is added, 2
 * * rows bytes of results.
 */
void EP(convolve_plain)(const int8_t *input, int8_t *output, int8_t *scratch, const int8_t *other,
                        const struct EP(window) *window, const struct EP(plain_rows) *rows,
                        const struct EP(results) *results, int32_t groups);

/* scratch: two columns of int16 (16 * steps bytes), 8 bytes of results for every 4 rows unless they go straight to the
 * output, then, where the depth is no multiple of four, a patch (4 * steps bytes).
 */
void EP(convolve_packed)(const int8_t *input, int8_t *output, int32_t *scratch, const int8_t *other,
                         const struct EP(window) *window, const struct EP(packed_rows) *rows,
                         const struct EP(results) *results, int32_t groups);

/* Results of all rows at two columns: columns (2 * steps, 2, 2) holds of each the values 0 and 2, then 1 and 3; output
 * (2, distance), of which 4 * blocks bytes each are written.
 */
void EP(multiply_pair)(const int32_t *columns, int8_t *output, const struct EP(packed_rows) *rows, int32_t distance);

/* Results of all rows at one column: columns (2 * steps, 2). */
void EP(multiply_one)(const int32_t *column, int8_t *output, const struct EP(packed_rows) *rows);

#endif
