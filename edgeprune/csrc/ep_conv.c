#include "ep_conv.h"

#include "ep_helium.h"

static int8_t result(uint32_t sum, const int32_t *rescale, const struct EP(plain_rows) *of)
{
    return EP(clamped)(EP(rescale)((int32_t)sum, rescale[0], rescale[1]) + of->zero, of->low, of->high);
}

#if EP_MVE

#include "ep_conv_helium.h"

static void add(const int8_t *computed, const int8_t *other, int8_t *output, int32_t count,
                const struct EP(addition) *by)
{
    EP(add_run_lanes)(computed, other, output, count, by);
}

#else

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

static void add(const int8_t *computed, const int8_t *other, int8_t *output, int32_t count,
                const struct EP(addition) *by)
{
    EP(add_run)(computed, other, output, count, by);
}

#endif

/* The column of the output pixel whose patch begins at (y, x), wherever that is. */
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

/* That of a patch inside the image, of `lines` runs of bytes there, `next` apart: as it lies there where it is one run. */
static inline const int8_t *column_of(const int8_t *line, int8_t *bytes, int32_t lines, int32_t run, int32_t next)
{
    if (lines == 1) {
        return line;
    }
    for (int8_t *to = bytes; lines > 0; --lines, line += next, to += run) {
        EP(copy_bytes)(to, line, run);
    }
    return bytes;
}

/* Results of a pair of pixels go on to the sums they are part of. */
static void add_pair(const int8_t *kept, int32_t count, int8_t *output, const int8_t *other,
                     const struct EP(results) *results)
{
    for (; count > 0; --count, kept += results->rows, output += results->channels, other += results->channels) {
        add(kept, other, output, results->rows, results->adding);
    }
}

static void convolve_group(const int8_t *input, int8_t *output, int8_t *scratch, const int8_t *other,
                           const struct EP(window) *of, const struct EP(plain_rows) *rows,
                           const struct EP(results) *results)
{
    int8_t *second_bytes = scratch + rows->depth, *kept = second_bytes + rows->depth;
    const int32_t distance = results->adding ? results->rows : results->channels;
    const int32_t stride = of->stride_x, apart = stride * of->channels;
    const int32_t line_bytes = of->width * of->channels, next = of->dilation_y * line_bytes;
    const int32_t run = of->kernel_width * of->depth;
    /* lines from y in [0, height) and x in [0, width) on are runs inside the image */
    const int32_t width = EP(are_lines_runs)(of) ? of->width - (of->kernel_width - 1) * of->dilation_x : 0;
    const int32_t height = of->height - (of->kernel_height - 1) * of->dilation_y;
    const int32_t lines = of->batches * of->out_height;
    int32_t y = -of->above;
    for (int32_t i = 0; i < lines; ++i) {
        const int is_inside = y >= 0 && y < height;
        int32_t x = -of->before;
        for (int32_t j = of->out_width; j > 0; j -= 2, x += 2 * stride) {
            const int32_t count = j > 1 ? 2 : 1, last = x + (count - 1) * stride;
            int8_t *to = results->adding ? kept : output;
            const int8_t *first, *second;
            if (is_inside && x >= 0 && last < width) {
                const int8_t *line = input + y * line_bytes + x * of->channels;
                first = column_of(line, scratch, of->kernel_height, run, next);
                second = count == 2 ? column_of(line + apart, second_bytes, of->kernel_height, run, next) : first;
            } else {
                first = column_at(input, y, x, scratch, of);
                second = count == 2 ? column_at(input, y, last, second_bytes, of) : first;
            }
            if (count == 2) {
                multiply_pair(first, second, to, distance, rows);
            } else {
                multiply_one(first, to, rows);
            }
            if (results->adding) {
                add_pair(kept, count, output, other, results);
                other += count * results->channels;
            }
            output += count * results->channels;
        }
        y += of->stride_y;
        if ((i + 1) % of->out_height == 0) {
            y = -of->above;
            input += of->height * line_bytes;
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
