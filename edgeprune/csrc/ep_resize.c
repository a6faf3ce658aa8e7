#include "ep_resize.h"

void EP(resize_bilinear)(const int8_t *in, int8_t *out, const int32_t *rows, int32_t row_count, const int32_t *columns,
                         int32_t column_count, int32_t batches, int32_t batch_size, int32_t channels)
{
    for (int32_t batch = 0; batch < batches; batch++, in += batch_size) {
        for (int32_t y = 0; y < row_count; y++) {
            const int8_t *upper = in + rows[3 * y], *lower = in + rows[3 * y + 1];
            const int32_t down = rows[3 * y + 2], up = 1024 - down;
            for (int32_t x = 0; x < column_count; x++) {
                const int32_t left = columns[3 * x], right = columns[3 * x + 1];
                const int32_t east = columns[3 * x + 2], west = 1024 - east;
                for (int32_t c = 0; c < channels; c++) {
                    const int32_t above = upper[left + c] * west + upper[right + c] * east;
                    const int32_t below = lower[left + c] * west + lower[right + c] * east;
                    const int32_t sum = above * up + below * down;
                    const int32_t half = sum > 0 ? (int32_t)1 << 19 : -((int32_t)1 << 19);
                    *out++ = (int8_t)((sum + half) / ((int32_t)1 << 20)); /* halves away from zero */
                }
            }
        }
    }
}
