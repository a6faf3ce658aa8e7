#include "ep_dense.h"

/* sum * (high * 2^31 + low) / 2^(31 + bits), rounded once; the part below the point of the first division is floored,
 * which the second one's floor does not see. bits 1 to 62.
 */
static int32_t rescale_once(int32_t sum, const int32_t *by)
{
    const int64_t product = (int64_t)sum * by[0] + ((int64_t)sum * by[1] >> 31);
    return (int32_t)((product + ((int64_t)1 << (by[2] - 1))) >> by[2]);
}

void EP(multiply_vectors_long)(const int8_t *input, int8_t *output, int32_t vectors, const struct EP(dense_rows) *rows)
{
    for (int32_t i = 0; i < vectors; ++i, input += rows->depth) {
        const int8_t *weights = rows->weights;
        const int32_t *rescale = rows->rescales;
        for (int32_t row = 0; row < rows->rows; ++row, rescale += rows->rescales_step) {
            uint32_t sum = (uint32_t)rows->sums[row];
            for (int32_t k = 0; k < rows->depth; ++k) {
                sum += (uint32_t)(*weights++ * input[k]);
            }
            *output++ = EP(clamped)(rescale_once((int32_t)sum, rescale) + rows->zero, rows->low, rows->high);
        }
    }
}
