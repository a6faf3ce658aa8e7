#include "ep_dense.h"

#if EP_DSP

EP_NAKED static void multiply(EP_UNUSED const int32_t *column, EP_UNUSED int8_t *output,
                              EP_UNUSED const struct EP(packed_rows) *rows)
{
    __asm__(EP_MULTIPLY_ONE(EP_RESCALE_ONCE));
}

#else

static void multiply(const int32_t *column, int8_t *output, const struct EP(packed_rows) *rows)
{
    EP(multiply_packed)(column, 1, output, rows, 1);
}

#endif

/* A column of a vector: its last values are read one by one, and followed by zeros up to four. */
static void widen_vector(int32_t *column, const int8_t *input, int32_t depth)
{
    const int32_t whole = depth / 4 * 4;
    column = EP(widen)(column, input, whole, 1);
    if (depth > whole) {
        int8_t last[4] = {0, 0, 0, 0};
        for (int32_t i = whole; i < depth; ++i) {
            last[i - whole] = input[i];
        }
        EP(widen)(column, last, 4, 1);
    }
}

void EP(multiply_vectors_packed)(const int8_t *input, int8_t *output, int32_t *scratch, int32_t vectors, int32_t depth,
                                 int32_t count, int32_t low, int32_t high, const struct EP(packed_rows) *rows)
{
    const int is_last = count % 4 == 0 && low == -128 && high == 127;
    int8_t *results = (int8_t *)(scratch + 2 * rows->steps);
    for (int32_t i = 0; i < vectors; ++i, input += depth, output += count) {
        widen_vector(scratch, input, depth);
        multiply(scratch, is_last ? output : results, rows);
        for (int32_t j = 0; j < count && !is_last; ++j) {
            output[j] = EP(clamped)(results[j], low, high);
        }
    }
}
