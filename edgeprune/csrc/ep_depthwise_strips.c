/* Depthwise convolution by strips, for cores with Helium: what the windows of one row of outputs cover, of one channel, with
 * the taps of each window next to each other, so that they meet the filter as the lanes of one register or a few.
 *
 * A strip has a column for each position along, padding included, of a value of each line that the filter covers. A line
 * stays in its place in the columns while the filter goes across, and the next one takes that of the line that is left
 * behind: it is the filter whose lines are turned, by one of `turns`.
 */
#include "ep_depthwise.h"

#include "ep_bytes.h"
#include "ep_helium.h"

#define EP_VECTOR 16 /* bytes of a register */

#define EP_INLINE static inline __attribute__((always_inline))

#if EP_MVE

/* Every `step`-th of `count` bytes goes to every `apart`-th one: both less than 9362, so that 7 of them fit 16 bits. */
static void insert(int8_t *to, int32_t apart, const int8_t *from, int32_t step, int32_t count)
{
    const uint16x8_t lanes = vidupq_n_u16(0, 1);
    const uint16x8_t sources = vmulq_n_u16(lanes, (uint16_t)step), places = vmulq_n_u16(lanes, (uint16_t)apart);
    __asm__ volatile("dlstp.16 lr, %[count]\n"
                     "1:\n\t"
                     "vldrb.u16 q0, [%[from], %q[sources]]\n\t"
                     "add      %[from], %[from], %[step]\n\t"
                     "vstrb.16 q0, [%[to], %q[places]]\n\t"
                     "add      %[to], %[to], %[apart]\n\t"
                     "letp     lr, 1b"
                     : [from] "+r"(from), [to] "+r"(to)
                     : [count] "r"(count), [sources] "w"(sources), [places] "w"(places), [step] "r"(8 * step),
                       [apart] "r"(8 * apart)
                     : "q0", "lr", "memory");
}

/* The lines of a filter of `taps` weights in the order of the columns. */
static void turn(int8_t *to, const int8_t *weights, const uint8_t *places, int32_t taps)
{
    for (; taps > 0; taps -= EP_VECTOR, to += EP_VECTOR, places += EP_VECTOR) {
        const mve_pred16_t within = vctp8q((uint32_t)taps); /* all other lanes become 0 */
        vstrbq_s8(to, vldrbq_gather_offset_z_s8(weights, vldrbq_u8(places), within));
    }
}

EP_INLINE int32_t dot(const int8_t *values, const int8_t *filter, int32_t vectors, int8x16_t first)
{
    int32_t sum = vmladavq_s8(vldrbq_s8(values), first);
    for (int32_t i = 1; i < vectors; ++i) {
        sum = vmladavaq_s8(sum, vldrbq_s8(values + EP_VECTOR * i), vldrbq_s8(filter + EP_VECTOR * i));
    }
    return sum;
}

/* Four neighbours of a row; `apart` bytes from the window of one to that of the next. */
EP_INLINE int32x4_t four_sums(const int8_t *values, int32_t apart, const int8_t *filter, int32_t vectors,
                                  int8x16_t first)
{
    const int8_t *second = values + apart, *third = second + apart, *fourth = third + apart;
    const int32_t a = dot(values, filter, vectors, first), b = dot(second, filter, vectors, first);
    const int32_t c = dot(third, filter, vectors, first), d = dot(fourth, filter, vectors, first);
    return EP(lanes_of)(a, b, c, d);
}

/* Sums of a channel without its bias become results; the clamps are a register each. */
EP_INLINE int32x4_t results_of(int32x4_t products, const int32_t *channel, int32x4_t low, int32x4_t high, int is_short,
                               int32_t zero)
{
    const int32x4_t sums = vaddq_n_s32(products, channel[EP_STRIPS_BIAS]);
    const int32_t multiplier = channel[EP_STRIPS_MULTIPLIER], shift = channel[EP_STRIPS_SHIFT];
    if (is_short) { /* the zero point is added before the shift, with the one less below zero */
        const int32x4_t below = vaddq_n_s32(vshrq_n_s32(sums, 31), zero * (1 << -shift));
        return EP(clamp_lanes)(vrshlq_n_s32(vqrdmlahq_n_s32(below, sums, multiplier), shift), low, high);
    }
    const int32x4_t rescaled = EP(rescale_lanes)(sums, vdupq_n_s32(multiplier), vdupq_n_s32(shift));
    return EP(clamp_lanes)(vaddq_n_s32(rescaled, zero), low, high);
}

/* One row of outputs. Where fewer than four are left the strip has room for the windows of those that are not there. */
EP_INLINE void filter_fours(const int8_t *strip, const int8_t *filter, const int32_t *given, int8_t *output,
                            const struct EP(strips) *by, const int8_t *other, const struct EP(addition) *addition,
                            int is_short)
{
    const int32_t channel[EP_STRIPS_CHANNEL] = {given[0], given[1], given[2]}; /* a copy that no store can change */
    const int32_t apart = by->along.stride * by->across.size, step = by->output_step;
    const int32_t vectors = by->vectors, zero = by->output_zero;
    const int32x4_t low = vdupq_n_s32(by->low), high = vdupq_n_s32(by->high);
    const int8x16_t first = vldrbq_s8(filter);
    const uint32x4_t places = vmulq_n_u32(vidupq_n_u32(0, 1), (uint32_t)step);
    int32_t left = by->along.output;
    for (; left > 0; left -= 4, strip += 4 * apart, output += 4 * step) {
        const int32x4_t products = four_sums(strip, apart, filter, vectors, first);
        int32x4_t results = results_of(products, channel, low, high, is_short, zero);
        const mve_pred16_t within = left < 4 ? vctp32q((uint32_t)left) : 0xffff;
        if (addition) {
            const int32x4_t others = vldrbq_gather_offset_z_s32(other, places, within);
            const int32x4_t added = EP(add_lanes_of)(results, others, addition);
            results = EP(clamp_lanes)(added, vdupq_n_s32(addition->low), vdupq_n_s32(addition->high));
            other += 4 * step;
        }
        if (left >= 4) {
            vstrbq_scatter_offset_s32(output, places, results);
        } else {
            vstrbq_scatter_offset_p_s32(output, places, results, within);
        }
    }
}

/* A channel whose filter fits one register, with short rescales: what the assembly below goes by, at its offsets. */
struct plane {
    int32_t step;                   /* 0: bytes from one position of the input to the next, */
    int32_t within;                 /* 4: and how many positions windows reach */
    int32_t line;                   /* 8: the next line to be inserted, */
    const int8_t *source;           /* 12: where it lies in the input, */
    int32_t source_step;            /* 16: and bytes to the one behind it */
    int32_t lines;                  /* 20: of the input; others are padding */
    int32_t place;                  /* 24: of the next line in a column, */
    int32_t size;                   /* 28: and the bytes of a column */
    int8_t *first;                  /* 32: the column of the first position of the input */
    int32_t count;                  /* 36: lines to be inserted before the next row, */
    int32_t next_count;             /* 40: and before each one behind it */
    int32_t dilation;               /* 44: lines from one to the next */
    int32_t row_lines, row_source;  /* 48, 52: what a row adds to line and source, where it starts over */
    int32_t zero;                   /* 56: of the input */
    const uint8_t *turns;           /* 60 */
    const int8_t *weights;          /* 64 */
    int32_t taps;                   /* 68 */
    int32_t four_outputs, apart;    /* 72, 76: bytes of four outputs; from one window to the next */
    int32_t bias, offset;           /* 80, 84: offset is the output's zero point, shifted left */
    int32_t multiplier, shift;      /* 88, 92 */
    const int8_t *strip;            /* 96 */
    int8_t *output;                 /* 100 */
    int32_t output_line;            /* 104: bytes from one row to the next */
    int32_t rows, fours, rest;      /* 108, 112, 116: outputs: rows of fours and a rest */
    int32_t low, high, output_step; /* 120, 124, 128 */
};

/* Four sums of windows from r0 on, less what the first turn of the filter in q7 is multiplied by; results in q0. */
#define EP_FILTER_FOUR                                                                                                 \
    "vldrb.8  q0, [r0]\n"                                                                                              \
    "add      r0, r0, r5\n"                                                                                            \
    "vldrb.8  q1, [r0]\n"                                                                                              \
    "add      r0, r0, r5\n"                                                                                            \
    "vmladav.s8 r4, q0, q7\n"                                                                                          \
    "vldrb.8  q2, [r0]\n"                                                                                              \
    "add      r0, r0, r5\n"                                                                                            \
    "vmladav.s8 r6, q1, q7\n"                                                                                          \
    "vldrb.8  q3, [r0]\n"                                                                                              \
    "add      r0, r0, r5\n"                                                                                            \
    "vmladav.s8 r8, q2, q7\n"                                                                                          \
    "vmladav.s8 r12, q3, q7\n"                                                                                         \
    "vmov     q0[2], q0[0], r4, r8\n"                                                                                  \
    "vmov     q0[3], q0[1], r6, r12\n"                                                                                 \
    "vadd.i32 q0, q0, r7\n"                                                                                            \
    "vshr.s32 q1, q0, #31\n"                                                                                           \
    "vadd.i32 q1, q1, r9\n"                                                                                            \
    "vqrdmlah.s32 q1, q0, r10\n"                                                                                       \
    "vrshl.s32 q1, r11\n"                                                                                              \
    "vmax.s32 q1, q1, q4\n"                                                                                            \
    "vmin.s32 q1, q1, q5\n"

/* All rows of a channel. In assembly, since a row takes few instructions beside what compilers spend on its loops. */
EP_NAKED static void filter_plane(EP_UNUSED struct plane *plane)
{
    __asm__(".syntax unified\n"
            "push     {r4-r11, lr}\n"
            "vpush    {d8-d15}\n"
            "mov      r2, r0\n"
            "ldrd     r4, r5, [r2, #120]\n"
            "ldr      r6, [r2, #128]\n"
            "vdup.32  q4, r4\n"
            "vdup.32  q5, r5\n"
            "mov      r4, #0\n"
            "vidup.u32 q6, r4, #1\n"
            "vmul.i32 q6, q6, r6\n"
            "1:\n" /* a row: first its new lines, the sources of eight positions in q2 and their places in q3 */
            "ldm      r2, {r3-r12}\n"
            "ldr      r1, [r2, #56]\n"
            "mov      r0, #0\n"
            "vdup.16  q1, r1\n"
            "vidup.u16 q2, r0, #1\n"
            "vmul.i16 q3, q2, r10\n"
            "vmul.i16 q2, q2, r3\n"
            "2:\n"
            "add      r0, r11, r9\n"
            "cmp      r5, r8\n" /* without signs: lines before the first one are beyond the last one */
            "bhs      4f\n"
            "mov      r1, r6\n"
            "dlstp.16 lr, r4\n"
            "3:\n"
            "vldrb.u16 q0, [r1, q2]\n"
            "add      r1, r1, r3, lsl #3\n"
            "vstrb.16 q0, [r0, q3]\n"
            "add      r0, r0, r10, lsl #3\n"
            "letp     lr, 3b\n"
            "b        6f\n"
            "4:\n"
            "dlstp.16 lr, r4\n"
            "5:\n"
            "vstrb.16 q1, [r0, q3]\n"
            "add      r0, r0, r10, lsl #3\n"
            "letp     lr, 5b\n"
            "6:\n"
            "ldr      r0, [r2, #44]\n"
            "add      r6, r6, r7\n"
            "add      r5, r5, r0\n"
            "add      r9, r9, #1\n"
            "cmp      r9, r10\n"
            "it       eq\n"
            "moveq    r9, #0\n"
            "subs     r12, r12, #1\n"
            "bne      2b\n"
            "ldr      r12, [r2, #40]\n"
            "ldrd     r0, r1, [r2, #48]\n"
            "add      r5, r5, r0\n"
            "add      r6, r6, r1\n"
            "strd     r5, r6, [r2, #8]\n"
            "str      r9, [r2, #24]\n"
            "str      r12, [r2, #36]\n"
            "ldrd     r0, r1, [r2, #60]\n" /* the filter, turned; lanes without a tap become 0 */
            "ldr      r3, [r2, #68]\n"
            "add      r0, r0, r9, lsl #4\n"
            "vldrb.8  q0, [r0]\n"
            "vctp.8   r3\n"
            "vpst\n"
            "vldrbt.u8 q7, [r1, q0]\n"
            "add      r0, r2, #72\n" /* then its outputs */
            "ldm      r0, {r3, r5, r7, r9, r10, r11}\n"
            "ldrd     r0, r1, [r2, #96]\n"
            "ldr      lr, [r2, #112]\n"
            "wls      lr, lr, 8f\n"
            "7:\n" EP_FILTER_FOUR
            "vstrb.32 q1, [r1, q6]\n"
            "add      r1, r1, r3\n"
            "le       lr, 7b\n"
            "8:\n"
            "ldr      r3, [r2, #116]\n"
            "cbz      r3, 9f\n" EP_FILTER_FOUR
            "vctp.32  r3\n"
            "vpst\n"
            "vstrbt.32 q1, [r1, q6]\n"
            "9:\n"
            "ldrd     r0, r1, [r2, #100]\n"
            "ldr      r3, [r2, #108]\n"
            "add      r0, r0, r1\n"
            "subs     r3, r3, #1\n"
            "str      r0, [r2, #100]\n"
            "str      r3, [r2, #108]\n"
            "bne      1b\n"
            "vpop     {d8-d15}\n"
            "pop      {r4-r11, pc}\n");
}

__attribute__((noinline)) static void filter_row(const int8_t *strip, int8_t *filter, const uint8_t *turned,
                                                 const int8_t *weights, const int32_t *channel, int8_t *output,
                                                 const struct EP(strips) *by, const int8_t *other,
                                                 const struct EP(addition) *addition)
{
    turn(filter, weights, turned, by->along.size * by->across.size);
    filter_fours(strip, filter, channel, output, by, other, addition, by->is_short);
}

#else

static void insert(int8_t *to, int32_t apart, const int8_t *from, int32_t step, int32_t count)
{
    for (; count > 0; --count, to += apart, from += step) {
        *to = *from;
    }
}

static void turn(int8_t *to, const int8_t *weights, const uint8_t *places, int32_t taps)
{
    for (int32_t i = 0; i < taps; ++i) {
        to[i] = weights[places[i]];
    }
}

static void filter_row(const int8_t *strip, int8_t *filter, const uint8_t *turned, const int8_t *weights,
                       const int32_t *channel, int8_t *output, const struct EP(strips) *by, const int8_t *other,
                       const struct EP(addition) *addition)
{
    turn(filter, weights, turned, by->along.size * by->across.size);
    const int32_t taps = by->along.size * by->across.size, apart = by->along.stride * by->across.size;
    for (int32_t left = by->along.output; left > 0; --left, strip += apart, output += by->output_step) {
        int32_t sum = channel[EP_STRIPS_BIAS];
        for (int32_t i = 0; i < taps; ++i) {
            sum += strip[i] * filter[i];
        }
        const int32_t value = EP(rescale)(sum, channel[EP_STRIPS_MULTIPLIER], channel[EP_STRIPS_SHIFT]);
        const int8_t result = EP(clamped)(value + by->output_zero, by->low, by->high);
        *output = addition ? EP(added)(result, *other, addition) : result;
        other += addition ? by->output_step : 0;
    }
}

#endif

/* Where lines go in a strip. */
struct strip {
    int8_t *bytes, *lines; /* its beginning, and that of the positions inside the image */
    int32_t place;         /* of the first line of the filter */
    int32_t count;         /* positions inside the image that windows reach */
};

/* Whether the next row of outputs needs only new lines of the input beside those that are there. */
static int32_t are_lines_kept(const struct EP(strips) *by)
{
    return by->across.dilation == 1 && by->across.stride < by->across.size;
}

/* Lines of the filter from `from` on, the first of which is `line` of the image, or outside. */
static void insert_lines(const struct strip *strip, int32_t from, const int8_t *image, int32_t line,
                         const struct EP(strips) *by)
{
    const int8_t zero = (int8_t)by->zero;
    const int32_t size = by->across.size;
    for (; from < size; ++from, line += by->across.dilation) {
        const int32_t after = strip->place + from, place = after < size ? after : after - size;
        if (line >= 0 && line < by->across.input) {
            insert(strip->lines + place, size, image + line * by->line, by->step, strip->count);
        } else {
            insert(strip->lines + place, size, &zero, 0, strip->count);
        }
    }
}

/* One channel of the input, which `multiplier` ones of the output are of. */
static void filter_channel(const struct strip *given, const int8_t *image, int8_t *output, int8_t *filter,
                           const int8_t *weights, const uint8_t *turns, const int32_t *channels,
                           const struct EP(strips) *by, const int8_t *other, const struct EP(addition) *addition)
{
    struct strip strip = *given;
    const int32_t size = by->across.size, taps = by->along.size * size, lanes = EP_VECTOR * by->vectors;
    const int32_t stride = by->across.stride;
    int32_t line = -by->across.before;
    for (int32_t i = 0; i < by->across.output; ++i, line += stride) {
        if (i > 0 && are_lines_kept(by)) { /* the new lines take the places of those that are left behind */
            strip.place = strip.place + stride < size ? strip.place + stride : strip.place + stride - size;
            insert_lines(&strip, size - stride, image, line + size - stride, by);
        } else {
            insert_lines(&strip, 0, image, line, by);
        }
        for (int32_t j = 0; j < by->multiplier; ++j) {
            filter_row(strip.bytes, filter, turns + strip.place * lanes, weights + j * taps,
                       channels + j * EP_STRIPS_CHANNEL, output + j, by, addition ? other + j : other, addition);
        }
        output += by->output_line;
        other += addition ? by->output_line : 0;
    }
}

#if EP_MVE

/* All channels that `filter_plane` is for. */
static void filter_planes(const struct strip *strip, const int8_t *input, int8_t *output, const int8_t *weights,
                          const uint8_t *turns, const int32_t *channels, const struct EP(strips) *by)
{
    const int32_t size = by->across.size, taps = by->along.size * size, dilation = by->across.dilation;
    const int32_t is_kept = are_lines_kept(by), before = by->across.before, starts_over = by->across.stride - size * dilation;
    struct plane plane;
    plane.step = by->step;
    plane.within = strip->count;
    plane.source_step = dilation * by->line;
    plane.lines = by->across.input;
    plane.size = size;
    plane.first = strip->lines;
    plane.next_count = is_kept ? by->across.stride : size;
    plane.dilation = dilation;
    plane.row_lines = is_kept ? 0 : starts_over;
    plane.row_source = plane.row_lines * by->line;
    plane.zero = by->zero;
    plane.turns = turns;
    plane.taps = taps;
    plane.four_outputs = 4 * by->output_step;
    plane.apart = by->along.stride * size;
    plane.strip = strip->bytes;
    plane.output_line = by->output_line;
    plane.fours = by->along.output / 4;
    plane.rest = by->along.output % 4;
    plane.low = by->low;
    plane.high = by->high;
    plane.output_step = by->output_step;
    for (int32_t i = 0; i < by->channels; ++i, channels += EP_STRIPS_CHANNEL) {
        const int32_t shift = channels[EP_STRIPS_SHIFT];
        plane.line = -before;
        plane.source = input + i - before * by->line;
        plane.place = 0;
        plane.count = size;
        plane.weights = weights + i * taps;
        plane.bias = channels[EP_STRIPS_BIAS];
        plane.offset = by->output_zero * (1 << -shift);
        plane.multiplier = channels[EP_STRIPS_MULTIPLIER];
        plane.shift = shift;
        plane.output = output + i;
        plane.rows = by->across.output;
        filter_plane(&plane);
    }
}

#endif

void EP(depthwise_strips)(const int8_t *input, int8_t *output, int8_t *scratch, const int8_t *weights,
                          const uint8_t *turns, const int32_t *channels, const struct EP(strips) *by,
                          const int8_t *other, const struct EP(addition) *addition)
{
    const int32_t size = by->across.size, before = by->along.before;
    const int32_t columns = (by->along.output - 1) * by->along.stride + by->along.size - before;
    int8_t *bytes = scratch + EP_VECTOR * by->vectors;
    const struct strip strip = {bytes, bytes + before * size, 0, columns < by->along.input ? columns : by->along.input};
    const int32_t filters = by->multiplier * by->along.size * by->across.size; /* of one channel of the input */
    const int32_t input_bytes = by->along.input * by->across.input * by->channels;
    const int32_t output_bytes = by->along.output * by->across.output * by->channels * by->multiplier;
    EP(fill_bytes)(bytes, by->zero, by->strip_bytes); /* padding along stays there */
    for (int32_t i = 0; i < by->batches; ++i) {
#if EP_MVE
        if (!addition && by->is_short && by->vectors == 1 && by->multiplier == 1) {
            filter_planes(&strip, input, output, weights, turns, channels, by);
            input += input_bytes;
            output += output_bytes;
            continue;
        }
#endif
        for (int32_t j = 0; j < by->channels; ++j) {
            const int32_t at = j * by->multiplier;
            filter_channel(&strip, input + j, output + at, scratch, weights + j * filters, turns,
                           channels + at * EP_STRIPS_CHANNEL, by, addition ? other + at : NULL, addition);
        }
        input += input_bytes;
        output += output_bytes;
        other = addition ? other + output_bytes : NULL;
    }
}
