#include "ep_dense.h"

#include "ep_helium.h"

/* sum * multiplier / 2^(31 + shift), rounded once; what the first division floors, the second one's floor does not see. */
static int8_t result(int32_t sum, const int32_t *rescale, const struct EP(dense_rows) *of)
{
    const int32_t high = (int32_t)((int64_t)sum * rescale[0] >> 31);
    return EP(clamped)(((high + (1 << (rescale[1] - 1))) >> rescale[1]) + of->zero, of->low, of->high);
}

#if EP_MVE

static int32_t sum_of(const int8_t *input, const int8_t *weights, int32_t depth, int32_t start)
{
    return EP(dot_one)(input, weights, depth, start);
}

/* Fours of rows; the last four end at the last row, though some of them are then computed twice. Returns the rows done. */
static int32_t multiply_fours(const int8_t *input, int8_t *output, const struct EP(dense_rows) *given)
{
    const struct EP(dense_rows) of = *given; /* a copy that no store can change */
    const int32x4_t low = vdupq_n_s32(of.low), high = vdupq_n_s32(of.high);
    const int32_t last = of.rows - 4;
    for (int32_t row = 0; row <= last; row = row + 4 < last || row == last ? row + 4 : last) {
        const int32x4x2_t rescales = vld2q_s32(of.rescales + row * of.rescales_step);
        const int32x4_t sums = EP(dot_four)(input, of.weights + row * of.depth, of.depth, of.sums + row);
        const int32x4_t products = vqdmulhq_s32(sums, rescales.val[0]);
        const int32x4_t results = vaddq_n_s32(vrshlq_s32(products, vnegq_s32(rescales.val[1])), of.zero);
        vstrbq_s32(output + row, EP(clamp_lanes)(results, low, high));
    }
    return of.rows < 4 ? 0 : of.rows;
}

#else

static int32_t sum_of(const int8_t *input, const int8_t *weights, int32_t depth, int32_t start)
{
    uint32_t sum = (uint32_t)start;
    for (int32_t k = 0; k < depth; ++k) {
        sum += (uint32_t)(weights[k] * input[k]);
    }
    return (int32_t)sum;
}

static int32_t multiply_fours(const int8_t *input, int8_t *output, const struct EP(dense_rows) *of)
{
    (void)input, (void)output, (void)of;
    return 0;
}

#endif

void EP(multiply_vectors)(const int8_t *input, int8_t *output, int32_t vectors, const struct EP(dense_rows) *of)
{
    for (int32_t i = 0; i < vectors; ++i, input += of->depth, output += of->rows) {
        for (int32_t row = multiply_fours(input, output, of); row < of->rows; ++row) {
            const int32_t sum = sum_of(input, of->weights + row * of->depth, of->depth, of->sums[row]);
            output[row] = result(sum, of->rescales + row * of->rescales_step, of);
        }
    }
}
