#include "ep_kernels.h"

static int8_t result(uint32_t sum, const int32_t *rescale, const struct EP(plain_rows) *of)
{
    return EP(clamped)(EP(rescale)((int32_t)sum, rescale[0], rescale[1]) + of->zero, of->low, of->high);
}

/* Two rows by two columns keep their four sums in registers; sums wrap as the reference's do. */
static void multiply_pair(const int8_t *first, const int8_t *second, int8_t *output, int32_t distance,
                          const struct EP(plain_rows) *of)
{
    const int8_t *weights = of->weights;
    const int32_t *rescale = of->rescales;
    for (int32_t row = 0; row < of->rows; row += 2) {
        const int32_t below = row + 1 < of->rows; /* an odd last row is taken twice */
        const int8_t *next = weights + below * of->depth;
        uint32_t a = (uint32_t)of->sums[row], b = (uint32_t)of->sums[row + below];
        uint32_t c = a, d = b;
        for (int32_t k = 0; k < of->depth; ++k) {
            const int32_t x = first[k], y = second[k], v = weights[k], w = next[k];
            a += (uint32_t)(v * x);
            b += (uint32_t)(w * x);
            c += (uint32_t)(v * y);
            d += (uint32_t)(w * y);
        }
        output[row] = result(a, rescale, of);
        output[row + distance] = result(c, rescale, of);
        rescale += below * of->rescales_step;
        output[row + below] = result(b, rescale, of);
        output[row + below + distance] = result(d, rescale, of);
        rescale += of->rescales_step;
        weights += 2 * of->depth;
    }
}

static void multiply_one(const int8_t *column, int8_t *output, const struct EP(plain_rows) *of)
{
    const int8_t *weights = of->weights;
    for (int32_t row = 0; row < of->rows; ++row, weights += of->depth) {
        uint32_t sum = (uint32_t)of->sums[row];
        for (int32_t k = 0; k < of->depth; ++k) {
            sum += (uint32_t)(weights[k] * column[k]);
        }
        output[row] = result(sum, of->rescales + row * of->rescales_step, of);
    }
}

/* The column of the output pixel whose patch begins at (y, x): as it lies in the image where it is one run of bytes. */
static const int8_t *column_at(const int8_t *image, int32_t y, int32_t x, int8_t *bytes, const struct EP(window) *of)
{
    const int32_t run = of->kernel_width * of->depth;
    if (of->kernel_height == 1) {
        return EP(patch_line)(image, y, x, bytes, of);
    }
    for (int32_t i = 0; i < of->kernel_height; ++i, y += of->dilation_y) {
        int8_t *to = bytes + i * run;
        const int8_t *line = EP(patch_line)(image, y, x, to, of);
        if (line != to) {
            EP(copy_bytes)(to, line, run);
        }
    }
    return bytes;
}

static void convolve_group(const int8_t *input, int8_t *output, int8_t *scratch, const int8_t *other,
                           const struct EP(window) *of, const struct EP(plain_rows) *rows,
                           const struct EP(results) *results)
{
    int8_t *kept = scratch + 2 * rows->depth;
    const int32_t distance = results->adding ? results->rows : results->channels;
    const int32_t lines = of->batches * of->out_height;
    int32_t y = -of->above;
    for (int32_t i = 0; i < lines; ++i) {
        int32_t x = -of->before;
        for (int32_t j = 0; j < of->out_width; j += 2) {
            int8_t *to = results->adding ? kept : output;
            int32_t count = 1;
            const int8_t *first = column_at(input, y, x, scratch, of);
            x += of->stride_x;
            if (j + 1 < of->out_width) {
                const int8_t *second = column_at(input, y, x, scratch + rows->depth, of);
                multiply_pair(first, second, to, distance, rows);
                x += of->stride_x;
                count = 2;
            } else {
                multiply_one(first, to, rows);
            }
            for (int32_t k = 0; k < count; ++k, output += results->channels) {
                if (results->adding) {
                    EP(add_run)(kept + k * distance, other, output, results->rows, results->adding);
                    other += results->channels;
                }
            }
        }
        y += of->stride_y;
        if ((i + 1) % of->out_height == 0) {
            y = -of->above;
            input += of->height * of->width * of->channels;
        }
    }
}

void EP(convolve_plain)(const int8_t *input, int8_t *output, int8_t *scratch, const int8_t *other,
                        const struct EP(window) *window, const struct EP(plain_rows) *rows,
                        const struct EP(results) *results, int32_t groups)
{
    for (int32_t i = 0; i < groups; ++i) {
        convolve_group(input, output, scratch, other, window, rows + i, results);
        input += window->depth;
        output += results->rows;
        other += results->adding ? results->rows : 0;
    }
}
