#include "ep_kernels.h"

/* Widens `count` values, a multiple of 4, of two columns. */
static inline int32_t *widen_pair(int32_t *to, const int8_t *first, const int8_t *second, int32_t count)
{
    for (; count > 0; count -= 4, first += 4, second += 4, to += 4) {
        const uint32_t a = EP(load_word)(first), b = EP(load_word)(second);
        to[0] = EP(even_bytes)(a);
        to[1] = EP(even_bytes)(b);
        to[2] = EP(odd_bytes)(a);
        to[3] = EP(odd_bytes)(b);
    }
    return to;
}

static inline int32_t *fill(int32_t *to, int32_t value, int32_t count, int32_t apart)
{
    const int32_t halves = (int32_t)(((uint32_t)value & 0xffffu) * 0x10001u);
    for (; count > 0; count -= 2, to += apart) {
        *to = halves;
    }
    return to;
}

/* One patch: line by line where the depth is a multiple of 4, else by way of its bytes; what fills up their last four
 * meets weights of zero.
 */
static void gather_one(int32_t *to, int8_t *bytes, const struct EP(pixel) *at, const struct EP(window) *of,
                       int32_t steps, int32_t apart)
{
    if (of->depth % 4 != 0) {
        EP(gather_bytes)(bytes, at, of);
        EP(widen)(to, bytes, 4 * steps, apart);
        return;
    }
    for (int32_t i = 0; i < of->kernel_height; ++i) {
        const int32_t y = at->y + i * of->dilation_y;
        const int is_line = y >= 0 && y < of->height;
        for (int32_t j = 0; j < of->kernel_width; ++j) {
            const int32_t x = at->x + j * of->dilation_x;
            if (is_line && x >= 0 && x < of->width) {
                to = EP(widen)(to, at->image + (y * of->width + x) * of->channels, of->depth, apart);
            } else {
                to = fill(to, of->zero, of->depth, apart);
            }
        }
    }
}

/* The patches of a pixel inside the image and of the next one, in runs of `run` pixels, a multiple of 4 values. */
static void gather_pair(int32_t *to, const struct EP(pixel) *at, const struct EP(window) *of, int32_t run)
{
    const int8_t *line = at->image + (at->y * of->width + at->x) * of->channels;
    for (int32_t i = 0; i < of->kernel_height; ++i) {
        const int8_t *first = line;
        for (int32_t j = 0; j < of->kernel_width; j += run) {
            to = widen_pair(to, first, first + of->stride_x * of->channels, run * of->depth);
            first += of->dilation_x * of->channels;
        }
        line += of->dilation_y * of->width * of->channels;
    }
}

#if EP_DSP

/* Sums of rows 0 to 3 at both columns: r4 r5, r6 r7, r8 r9, r10 r11, those of odd rows mixed as `packed_rows` says.
 * r0 weights, r1 columns.
 */
#define PAIR_HALF_STEP                                                                                                 \
    "ldrd   r2, r3, [r0], #8\n"                                                                                        \
    "ldrd   r12, lr, [r1], #8\n"                                                                                       \
    "smlad  r6, r2, r12, r6\n"                                                                                         \
    "smlad  r7, r2, lr, r7\n"                                                                                          \
    "sxtb16 r2, r2\n"                                                                                                  \
    "smlad  r10, r3, r12, r10\n"                                                                                       \
    "smlad  r11, r3, lr, r11\n"                                                                                        \
    "sxtb16 r3, r3\n"                                                                                                  \
    "smlad  r4, r2, r12, r4\n"                                                                                         \
    "smlad  r5, r2, lr, r5\n"                                                                                          \
    "smlad  r8, r3, r12, r8\n"                                                                                         \
    "smlad  r9, r3, lr, r9\n"
#define PAIR_STEP PAIR_HALF_STEP PAIR_HALF_STEP

/* Stack: 0 end of the columns, 4 where the loop is entered, 8 columns, 12 end of the weights, 16 output, 20 rescales, 24
 * distance, 28 step of the rescales.
 */
EP_NAKED static void multiply_pair(EP_UNUSED const int32_t *columns, EP_UNUSED int8_t *output,
                             EP_UNUSED const struct EP(packed_rows) *rows, EP_UNUSED int32_t distance)
{
    __asm__(".syntax unified\n"
            "push   {r4-r11, lr}\n"
            "sub    sp, sp, #36\n"
            "ldr    r4, [r2, #16]\n"
            "add    r5, r0, r4, lsl #4\n"
            "rsb    r4, r4, #0\n"
            "and    r4, r4, #3\n"
            "movs   r6, #96\n"
            "mul    r6, r6, r4\n"
            "adr.w  r7, 2f\n"
            "add    r6, r6, r7\n"
            "strd   r5, r6, [sp]\n"
            "ldr    r4, [r2, #4]\n"
            "strd   r0, r4, [sp, #8]\n"
            "ldrd   r4, r5, [r2, #8]\n"
            "strd   r1, r4, [sp, #16]\n"
            "strd   r3, r5, [sp, #24]\n"
            "ldr    r0, [r2]\n"
            "1:\n"
            "ldr    r1, [sp, #8]\n"
            "ldm    r0!, {r5, r7, r9, r11}\n"
            "mov    r4, r5\n"
            "mov    r6, r7\n"
            "mov    r8, r9\n"
            "mov    r10, r11\n"
            "ldr    r2, [sp, #4]\n"
            "mov    pc, r2\n"
            ".balign 4\n"
            "2:\n" PAIR_STEP PAIR_STEP PAIR_STEP PAIR_STEP
            "ldr    r2, [sp]\n"
            "cmp    r1, r2\n"
            "bne.w  2b\n"
            "sub    r6, r6, r4\n"
            "sub    r7, r7, r5\n"
            "sub    r10, r10, r8\n"
            "sub    r11, r11, r9\n"
            "ldr    r1, [sp, #20]\n" EP_LOAD_RESCALE EP_FIRST(EP_RESCALE_TWICE, "r4") EP_FIRST(EP_RESCALE_TWICE, "r5") EP_LOAD_RESCALE
                EP_SECOND(EP_RESCALE_TWICE, "r6") EP_SECOND(EP_RESCALE_TWICE, "r7") EP_LOAD_RESCALE EP_FIRST(EP_RESCALE_TWICE, "r8") EP_FIRST(EP_RESCALE_TWICE, "r9")
                    EP_LOAD_RESCALE EP_SECOND(EP_RESCALE_TWICE, "r10") EP_SECOND(EP_RESCALE_TWICE, "r11")
            "ldrd   r2, r3, [sp, #24]\n"
            "ldr    r12, [sp, #16]\n"
            "add    r1, r1, r3\n"
            "add    r2, r2, r12\n"
            "strb   r4, [r12], #1\n"
            "strb   r6, [r12], #1\n"
            "strb   r8, [r12], #1\n"
            "strb   r10, [r12], #1\n"
            "strb   r5, [r2]\n"
            "strb   r7, [r2, #1]\n"
            "strb   r9, [r2, #2]\n"
            "strb   r11, [r2, #3]\n"
            "strd   r12, r1, [sp, #16]\n"
            "ldr    r2, [sp, #12]\n"
            "cmp    r0, r2\n"
            "bne.w  1b\n"
            "add    sp, sp, #36\n"
            "pop    {r4-r11, pc}\n");
}

EP_NAKED static void multiply_one(EP_UNUSED const int32_t *column, EP_UNUSED int8_t *output,
                                  EP_UNUSED const struct EP(packed_rows) *rows)
{
    __asm__(EP_MULTIPLY_ONE(EP_RESCALE_TWICE));
}

#else

static void multiply_pair(const int32_t *columns, int8_t *output, const struct EP(packed_rows) *rows, int32_t distance)
{
    EP(multiply_packed)(columns, 2, output, rows, 0);
    EP(multiply_packed)(columns + 1, 2, output + distance, rows, 0);
}

static void multiply_one(const int32_t *column, int8_t *output, const struct EP(packed_rows) *rows)
{
    EP(multiply_packed)(column, 1, output, rows, 0);
}

#endif

/* The columns of the next `count` pixels, 1 or 2; `at` moves behind them. */
static void gather(int32_t *columns, int8_t *bytes, struct EP(pixel) *at, const struct EP(window) *of, int32_t steps,
                   int32_t count)
{
    const struct EP(pixel) first = *at;
    EP(next_pixel)(at, of);
    if (count == 2) {
        const struct EP(pixel) second = *at;
        const int32_t run = of->depth == of->channels && of->dilation_x == 1 ? of->kernel_width : 1;
        EP(next_pixel)(at, of);
        if (run * of->depth % 4 == 0 && second.column > first.column && EP(is_inside)(&first, of) &&
            EP(is_inside)(&second, of)) {
            gather_pair(columns, &first, of, run);
            return;
        }
        gather_one(columns + 1, bytes, &second, of, steps, 2);
    }
    gather_one(columns, bytes, &first, of, steps, count);
}

/* What the rows' results of `count` values still have to go through. */
static void finish(int8_t *results, int8_t *to, const int8_t *other, const struct EP(results) *of)
{
    const int32_t low = of->low, high = of->high;
    for (int32_t i = 0; i < of->rows; ++i) {
        results[i] = EP(clamped)(results[i], low, high);
    }
    if (of->adding) {
        EP(add_run)(results, other, to, of->rows, of->adding);
    } else {
        EP(copy_bytes)(to, results, of->rows);
    }
}

static void convolve_group(const int8_t *input, int8_t *output, int32_t *columns, const int8_t *other,
                           const struct EP(window) *window, const struct EP(packed_rows) *rows,
                           const struct EP(results) *of)
{
    const int32_t padded = (of->rows + 3) / 4 * 4;
    const int is_last = padded == of->rows && of->low == -128 && of->high == 127 && !of->adding;
    int8_t *kept = (int8_t *)(columns + 4 * rows->steps);
    int8_t *bytes = is_last ? kept : kept + 2 * padded;
    struct EP(pixel) at = EP(first_pixel)(input, window);
    const int32_t pixels = window->batches * window->out_height * window->out_width;
    for (int32_t i = 0; i < pixels; i += 2) {
        const int32_t count = i + 1 < pixels ? 2 : 1;
        int8_t *to = is_last ? output : kept;
        gather(columns, bytes, &at, window, rows->steps, count);
        if (count == 2) {
            multiply_pair(columns, to, rows, is_last ? of->channels : padded);
        } else {
            multiply_one(columns, to, rows);
        }
        for (int32_t j = 0; j < count; ++j, output += of->channels) {
            if (!is_last) {
                finish(kept + j * padded, output, other, of);
                other += of->adding ? of->channels : 0;
            }
        }
    }
}

void EP(convolve_packed)(const int8_t *input, int8_t *output, int32_t *scratch, const int8_t *other,
                         const struct EP(window) *window, const struct EP(packed_rows) *rows,
                         const struct EP(results) *results, int32_t groups)
{
    for (int32_t i = 0; i < groups; ++i) {
        convolve_group(input, output, scratch, other, window, rows + i, results);
        input += window->depth;
        output += results->rows;
        other += results->adding ? results->rows : 0;
    }
}
