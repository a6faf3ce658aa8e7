/* Fully connected layers: rows of weights times vectors of input values.
 *
 * The reference multiplies each sum by one real factor and rounds once, halves away from zero, unlike in convolutions. The
 * multipliers are chosen so that every sum that can be comes out as it does there.
 */
#ifndef EP_DENSE_H
#define EP_DENSE_H

#include "ep_base.h"
#include "ep_packed.h"

/* Rows for any core. */
struct EP(dense_rows) {
    const int8_t *weights;   /* (rows, depth) */
    const int32_t *sums;     /* (rows): what each sum starts from */
    const int32_t *rescales; /* (rows or 4, 2 or 3): what each sum is rescaled by, see below */
    int32_t rescales_step;   /* 2 or 3, or 0 where all rows share one */
    int32_t rows, depth;
    int32_t zero, low, high; /* of the output */
};

/* input (vectors, depth), output (vectors, rows). Rescales are a multiplier below 2^31 and a shift, 1 to 22. */
void EP(multiply_vectors)(const int8_t *input, int8_t *output, int32_t vectors, const struct EP(dense_rows) *rows);

/* Where no such multiplier is exact: high and low 31 bits of one, and the bits behind its point - 31. */
void EP(multiply_vectors_long)(const int8_t *input, int8_t *output, int32_t vectors, const struct EP(dense_rows) *rows);

/* The same for cores with the DSP instructions. scratch: 8 * steps bytes of a column, then 4 bytes for every 4 rows. */
void EP(multiply_vectors_packed)(const int8_t *input, int8_t *output, int32_t *scratch, int32_t vectors, int32_t depth,
                                 int32_t count, int32_t low, int32_t high, const struct EP(packed_rows) *rows);

#endif
