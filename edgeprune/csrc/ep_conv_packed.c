#include "ep_conv.h"

/* Widens `count` values, a multiple of 4, of two columns. */
static inline int32_t *widen_pair(int32_t *to, const int8_t *first, const int8_t *second, int32_t count)
{
#if EP_DSP
#define FOUR                                                                                                           \
    "ldr    r4, [%1], #4\n"                                                                                            \
    "ldr    r6, [%2], #4\n"                                                                                            \
    "sxtb16 r3, r4\n"                                                                                                  \
    "sxtb16 r5, r4, ror #8\n"                                                                                          \
    "sxtb16 r4, r6\n"                                                                                                  \
    "sxtb16 r6, r6, ror #8\n"                                                                                          \
    "stm    %0!, {r3, r4, r5, r6}\n"
#define WIDEN(values, fours)                                                                                           \
    for (; count >= (values); count -= (values)) {                                                                     \
        __asm__ volatile(fours : "+r"(to), "+r"(first), "+r"(second) : : "r3", "r4", "r5", "r6", "memory");            \
    }
    WIDEN(16, FOUR FOUR FOUR FOUR)
    WIDEN(4, FOUR)
#else
    for (; count > 0; count -= 4, first += 4, second += 4, to += 4) {
        EP(widen)(to, first, 4, 2);
        EP(widen)(to + 1, second, 4, 2);
    }
#endif
    return to;
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
#define MULTIPLY_PAIR(rescale)                                                                                         \
    ".syntax unified\n"                                                                                                \
    "push   {r4-r11, lr}\n"                                                                                            \
    "sub    sp, sp, #36\n"                                                                                             \
    "ldr    r4, [r2, #16]\n"                                                                                           \
    "add    r5, r0, r4, lsl #4\n"                                                                                      \
    "rsb    r4, r4, #0\n"                                                                                              \
    "and    r4, r4, #3\n"                                                                                              \
    "movs   r6, #96\n"                                                                                                 \
    "mul    r6, r6, r4\n"                                                                                              \
    "adr.w  r7, 2f\n"                                                                                                  \
    "add    r6, r6, r7\n"                                                                                              \
    "strd   r5, r6, [sp]\n"                                                                                            \
    "ldr    r4, [r2, #4]\n"                                                                                            \
    "strd   r0, r4, [sp, #8]\n"                                                                                        \
    "ldrd   r4, r5, [r2, #8]\n"                                                                                        \
    "strd   r1, r4, [sp, #16]\n"                                                                                       \
    "strd   r3, r5, [sp, #24]\n"                                                                                       \
    "ldr    r0, [r2]\n"                                                                                                \
    "1:\n"                                                                                                             \
    "ldr    r1, [sp, #8]\n"                                                                                            \
    "ldm    r0!, {r5, r7, r9, r11}\n"                                                                                  \
    "mov    r4, r5\n"                                                                                                  \
    "mov    r6, r7\n"                                                                                                  \
    "mov    r8, r9\n"                                                                                                  \
    "mov    r10, r11\n"                                                                                                \
    "ldr    r2, [sp, #4]\n"                                                                                            \
    "mov    pc, r2\n"                                                                                                  \
    ".balign 4\n"                                                                                                      \
    "2:\n"                                                                                                             \
    PAIR_STEP                                                                                                          \
    PAIR_STEP                                                                                                          \
    PAIR_STEP                                                                                                          \
    PAIR_STEP                                                                                                          \
    "ldr    r2, [sp]\n"                                                                                                \
    "cmp    r1, r2\n"                                                                                                  \
    "bne.w  2b\n"                                                                                                      \
    "sub    r6, r6, r4\n"                                                                                              \
    "sub    r7, r7, r5\n"                                                                                              \
    "sub    r10, r10, r8\n"                                                                                            \
    "sub    r11, r11, r9\n"                                                                                            \
    "ldr    r1, [sp, #20]\n"                                                                                           \
    EP_LOAD_RESCALE                                                                                                    \
    EP_FIRST(rescale, "r4")                                                                                            \
    EP_FIRST(rescale, "r5")                                                                                            \
    EP_LOAD_RESCALE                                                                                                    \
    EP_SECOND(rescale, "r6")                                                                                           \
    EP_SECOND(rescale, "r7")                                                                                           \
    EP_LOAD_RESCALE                                                                                                    \
    EP_FIRST(rescale, "r8")                                                                                            \
    EP_FIRST(rescale, "r9")                                                                                            \
    EP_LOAD_RESCALE                                                                                                    \
    EP_SECOND(rescale, "r10")                                                                                          \
    EP_SECOND(rescale, "r11")                                                                                          \
    "ldrd   r2, r3, [sp, #24]\n"                                                                                       \
    "ldr    r12, [sp, #16]\n"                                                                                          \
    "add    r1, r1, r3\n"                                                                                              \
    "add    r2, r2, r12\n"                                                                                             \
    "strb   r4, [r12], #1\n"                                                                                           \
    "strb   r6, [r12], #1\n"                                                                                           \
    "strb   r8, [r12], #1\n"                                                                                           \
    "strb   r10, [r12], #1\n"                                                                                          \
    "strb   r5, [r2]\n"                                                                                                \
    "strb   r7, [r2, #1]\n"                                                                                            \
    "strb   r9, [r2, #2]\n"                                                                                            \
    "strb   r11, [r2, #3]\n"                                                                                           \
    "strd   r12, r1, [sp, #16]\n"                                                                                      \
    "ldr    r2, [sp, #12]\n"                                                                                           \
    "cmp    r0, r2\n"                                                                                                  \
    "bne.w  1b\n"                                                                                                      \
    "add    sp, sp, #36\n"                                                                                             \
    "pop    {r4-r11, pc}\n"

EP_NAKED void EP(multiply_pair)(EP_UNUSED const int32_t *columns, EP_UNUSED int8_t *output,
                                EP_UNUSED const struct EP(packed_rows) *rows, EP_UNUSED int32_t distance)
{
    __asm__(MULTIPLY_PAIR(EP_RESCALE_TWICE));
}

EP_NAKED void EP(multiply_pair_positive)(EP_UNUSED const int32_t *columns, EP_UNUSED int8_t *output,
                                         EP_UNUSED const struct EP(packed_rows) *rows, EP_UNUSED int32_t distance)
{
    __asm__(MULTIPLY_PAIR(EP_RESCALE_POSITIVE));
}

EP_NAKED static void multiply_one(EP_UNUSED const int32_t *column, EP_UNUSED int8_t *output,
                                  EP_UNUSED const struct EP(packed_rows) *rows)
{
    __asm__(EP_MULTIPLY_ONE(EP_RESCALE_TWICE));
}

/* One sum: r0 wide, r1 narrow, r2 output; r3 to r10 the structure's numbers from narrow_offset to shift. */
#define ADD_ONE                                                                                                        \
    "ldrsb  r11, [r1], #1\n"                                                                                           \
    "ldrsb  r12, [r0], #1\n"                                                                                           \
    "add    r11, r3, r11, lsl #21\n"                                                                                   \
    "smmlar lr, r11, r4, r5\n"                                                                                         \
    "add    r11, lr, r11, asr #31\n"                                                                                   \
    "asr    r11, r11, r6\n"                                                                                            \
    "add    r12, r7, r12, lsl #20\n"                                                                                   \
    "add    r12, r12, r11, lsl #1\n"                                                                                   \
    "smmlar lr, r12, r8, r9\n"                                                                                         \
    "add    r12, lr, r12, asr #31\n"                                                                                   \
    "asr    r12, r12, r10\n"                                                                                           \
    "ssat   r12, #8, r12\n"                                                                                            \
    "strb   r12, [r2], #1\n"

/* `count` sums, a multiple of 4, without clamps. `by` is on the stack. The zero point is added with half a step. */
EP_NAKED static void add_fours(EP_UNUSED const int8_t *wide, EP_UNUSED const int8_t *narrow, EP_UNUSED int8_t *output,
                               EP_UNUSED int32_t count, EP_UNUSED const struct EP(addition) *by)
{
    __asm__(".syntax unified\n"
            "push   {r4-r11, lr}\n"
            "sub    sp, sp, #4\n"
            "add    r3, r3, r2\n"
            "str    r3, [sp]\n"
            "ldr    r12, [sp, #40]\n"
            "ldr    r11, [r12, #36]\n"
            "add    r12, r12, #4\n"
            "ldm    r12, {r3-r10}\n"
            "lsl    r11, r11, r10\n"
            "add    r9, r9, r11\n"
            "1:\n" ADD_ONE ADD_ONE ADD_ONE ADD_ONE
            "ldr    r11, [sp]\n"
            "cmp    r2, r11\n"
            "bne.w  1b\n"
            "add    sp, sp, #4\n"
            "pop    {r4-r11, pc}\n");
}

/* Adding the zero point before the shift takes one that leaves it room. */
static void add(const int8_t *computed, const int8_t *other, int8_t *output, int32_t count,
                const struct EP(addition) *by)
{
    if (count % 4 == 0 && by->low == -128 && by->high == 127 && by->shift <= 23) {
        add_fours(by->computed_is_wide ? computed : other, by->computed_is_wide ? other : computed, output, count, by);
    } else {
        EP(add_run)(computed, other, output, count, by);
    }
}

#else

static void add(const int8_t *computed, const int8_t *other, int8_t *output, int32_t count,
                const struct EP(addition) *by)
{
    EP(add_run)(computed, other, output, count, by);
}

void EP(multiply_pair)(const int32_t *columns, int8_t *output, const struct EP(packed_rows) *rows, int32_t distance)
{
    EP(multiply_packed)(columns, 2, output, rows, 0);
    EP(multiply_packed)(columns + 1, 2, output + distance, rows, 0);
}

void EP(multiply_pair_positive)(const int32_t *columns, int8_t *output, const struct EP(packed_rows) *rows,
                                int32_t distance)
{
    EP(multiply_pair)(columns, output, rows, distance);
}

static void multiply_one(const int32_t *column, int8_t *output, const struct EP(packed_rows) *rows)
{
    EP(multiply_packed)(column, 1, output, rows, 0);
}

#endif

/* Where a group's columns are put together. A line of a patch is so many fours of values and a rest; the rests of all
 * lines follow the fours of all lines.
 */
struct gathering {
    int32_t *columns;
    int8_t *line;     /* one that has to be put together itself */
    int8_t *rests[2]; /* of both columns */
    int32_t whole, rest, rests_size;
};

static void copy_rest(int8_t *to, const int8_t *from, int32_t count)
{
    for (int32_t i = 0; i < count; ++i) {
        to[i] = from[i];
    }
}

/* One of `count` columns, of the pixel whose patch begins at (y, x). */
static void gather(const struct gathering *by, int32_t which, int32_t count, const int8_t *image, int32_t y, int32_t x,
                   const struct EP(window) *of)
{
    int32_t *to = by->columns + which;
    int8_t *rest = by->rests[which];
    for (int32_t i = 0; i < of->kernel_height; ++i, y += of->dilation_y, rest += by->rest) {
        const int8_t *line = EP(patch_line)(image, y, x, by->line, of);
        to = EP(widen)(to, line, by->whole, count);
        copy_rest(rest, line + by->whole, by->rest);
    }
    EP(widen)(to, by->rests[which], by->rests_size, count);
}

/* Both columns, of patches inside the image that begin `apart` bytes apart and whose lines are runs, `next` bytes apart. */
static void gather_pair(const struct gathering *by, const int8_t *line, int32_t apart, int32_t next, int32_t lines)
{
    int32_t *to = by->columns;
    if (by->rest == 0) {
        for (; lines > 0; --lines, line += next) {
            to = widen_pair(to, line, line + apart, by->whole);
        }
        return;
    }
    int8_t *first = by->rests[0], *second = by->rests[1];
    for (; lines > 0; --lines, line += next, first += by->rest, second += by->rest) {
        to = widen_pair(to, line, line + apart, by->whole);
        copy_rest(first, line + by->whole, by->rest);
        copy_rest(second, line + apart + by->whole, by->rest);
    }
    widen_pair(to, by->rests[0], by->rests[1], by->rests_size);
}

/* What results of `count` pixels, `distance` bytes apart, still have to go through. */
static void finish(int8_t *results, int32_t count, int32_t distance, int8_t *to, const int8_t *other,
                   const struct EP(results) *of)
{
    const int32_t low = of->low, high = of->high;
    for (; count > 0; --count, results += distance, to += of->channels, other += of->adding ? of->channels : 0) {
        for (int32_t i = 0; i < of->rows && (low > -128 || high < 127); ++i) {
            results[i] = EP(clamped)(results[i], low, high);
        }
        if (of->adding) {
            add(results, other, to, of->rows, of->adding);
        } else {
            EP(copy_bytes)(to, results, of->rows);
        }
    }
}

static void convolve_group(const int8_t *input, int8_t *output, int32_t *scratch, const int8_t *other,
                           const struct EP(window) *of, const struct EP(packed_rows) *rows,
                           const struct EP(results) *results, EP(pair_kernel) *multiply_pair)
{
    const int32_t run = of->kernel_width * of->depth, rest = run % 4;
    const int32_t padded = (results->rows + 3) / 4 * 4, rests_size = (of->kernel_height * rest + 3) / 4 * 4;
    const int is_last = padded == results->rows && results->low == -128 && results->high == 127 && !results->adding;
    int8_t *kept = (int8_t *)(scratch + 4 * rows->steps);
    int8_t *rests = kept + (is_last ? 0 : 2 * padded);
    const struct gathering by = {
        scratch, rests + 2 * rests_size, {rests, rests + rests_size}, run - rest, rest, rests_size};
    const int32_t apart = of->stride_x * of->channels, next = of->dilation_y * of->width * of->channels;
    const int32_t width = EP(are_lines_runs)(of) ? of->width - (of->kernel_width - 1) * of->dilation_x : 0;
    const int32_t height = of->height - (of->kernel_height - 1) * of->dilation_y;
    const int32_t lines = of->batches * of->out_height;
    int32_t y = -of->above;
    for (int32_t i = 0; i < lines; ++i) {
        const int is_inside = y >= 0 && y < height;
        int32_t x = -of->before;
        for (int32_t j = 0; j < of->out_width; j += 2) {
            const int32_t count = j + 1 < of->out_width ? 2 : 1;
            const int32_t distance = is_last ? results->channels : padded;
            int8_t *to = is_last ? output : kept;
            if (count == 1) {
                gather(&by, 0, 1, input, y, x, of);
                multiply_one(scratch, to, rows);
            } else {
                if (is_inside && x >= 0 && x + of->stride_x < width) {
                    const int8_t *line = input + (y * of->width + x) * of->channels;
                    gather_pair(&by, line, apart, next, of->kernel_height);
                } else {
                    gather(&by, 0, 2, input, y, x, of);
                    gather(&by, 1, 2, input, y, x + of->stride_x, of);
                }
                multiply_pair(scratch, to, rows, distance);
            }
            if (!is_last) {
                finish(kept, count, distance, output, other, results);
                other += results->adding ? count * results->channels : 0;
            }
            output += count * results->channels;
            x += 2 * of->stride_x;
        }
        y += of->stride_y;
        if ((i + 1) % of->out_height == 0) {
            y = -of->above;
            input += of->height * of->width * of->channels;
        }
    }
}

void EP(convolve_packed)(const int8_t *input, int8_t *output, int32_t *scratch, const int8_t *other,
                         const struct EP(window) *window, const struct EP(packed_rows) *rows,
                         const struct EP(results) *results, int32_t groups, EP(pair_kernel) *multiply_pair)
{
    for (int32_t i = 0; i < groups; ++i) {
        convolve_group(input, output, scratch, other, window, rows + i, results, multiply_pair);
        input += window->depth;
        output += results->rows;
        other += results->adding ? results->rows : 0;
    }
}
