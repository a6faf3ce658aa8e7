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

static void convolve_group(const int8_t *input, int8_t *output, int8_t *scratch, const int8_t *other,
                           const struct EP(window) *window, const struct EP(plain_rows) *rows,
                           const struct EP(results) *results)
{
    /* A patch of one pixel that cannot be padding is read where it lies. */
    const int is_run = window->kernel_height * window->kernel_width == 1 && window->above == 0 && window->before == 0;
    int8_t *kept = is_run ? scratch : scratch + 2 * rows->depth;
    struct EP(pixel) at = EP(first_pixel)(input, window);
    const int32_t pixels = window->batches * window->out_height * window->out_width;
    for (int32_t i = 0; i < pixels; i += 2) {
        const int32_t count = i + 1 < pixels ? 2 : 1;
        const int8_t *columns[2] = {scratch, scratch};
        for (int32_t j = 0; j < count; ++j) {
            if (is_run) {
                columns[j] = at.image + (at.y * window->width + at.x) * window->channels;
            } else {
                columns[j] = scratch + j * rows->depth;
                EP(gather_bytes)(scratch + j * rows->depth, &at, window);
            }
            EP(next_pixel)(&at, window);
        }
        int8_t *to = results->adding ? kept : output;
        const int32_t distance = results->adding ? results->rows : results->channels;
        if (count == 2) {
            multiply_pair(columns[0], columns[1], to, distance, rows);
        } else {
            multiply_one(columns[0], to, rows);
        }
        for (int32_t j = 0; j < count; ++j) {
            if (results->adding) {
                EP(add_run)(kept + j * distance, other, output, results->rows, results->adding);
                other += results->channels;
            }
            output += results->channels;
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
