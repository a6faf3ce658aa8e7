#include "ep_matmul.h"

void EP(batch_matmul)(const int8_t *a, const int8_t *b, int8_t *out, const int32_t *offsets, int32_t batches,
                      const int32_t *shape, const int32_t *factors)
{
    const int32_t rows = shape[0], columns = shape[1], depth = shape[2];
    const int32_t zero_a = factors[0], zero_b = factors[1];
    for (int32_t batch = 0; batch < batches; batch++) {
        const int8_t *row = a + offsets[2 * batch];
        for (int32_t y = 0; y < rows; y++, row += shape[3]) {
            const int8_t *column = b + offsets[2 * batch + 1];
            for (int32_t x = 0; x < columns; x++, column += shape[5]) {
                const int8_t *left = row, *right = column;
                int32_t sum = 0;
                for (int32_t k = 0; k < depth; k++, left += shape[4], right += shape[6]) {
                    sum += (*left - zero_a) * (*right - zero_b);
                }
                *out++ = EP(clamped)(EP(rescale)(sum, factors[3], factors[4]) + factors[2], -128, 127);
            }
        }
    }
}
