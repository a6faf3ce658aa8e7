#include "ep_pool.h"

#include "ep_helium.h"
#include "ep_lanes.h"

/* What of a window lies within the input: lines * count places. */
struct EP(covered) {
    const int8_t *from;
    int32_t lines, line, count, step;
};

static struct EP(covered) EP(cover)(const int8_t *input, int32_t row, int32_t column, const struct EP(pool) *by)
{
    const int32_t top = row * by->height.stride - by->height.before, left = column * by->width.stride - by->width.before;
    const int32_t bottom = top + by->height.size, right = left + by->width.size;
    const int32_t y = top > 0 ? top : 0, x = left > 0 ? left : 0;
    const int32_t lines = (bottom < by->height.input ? bottom : by->height.input) - y;
    const int32_t count = (right < by->width.input ? right : by->width.input) - x;
    const int8_t *from = input + (y * by->width.input + x) * by->channels;
    const int32_t line = by->width.input * by->channels;
    if (count == by->width.input) { /* whole lines are one */
        const struct EP(covered) covered = {from, 1, 0, lines * count, by->channels};
        return covered;
    }
    const struct EP(covered) covered = {from, lines, line, count, by->channels};
    return covered;
}

static int8_t EP(average)(int32_t sum, int32_t count, const struct EP(pool) *by)
{
    const int32_t half = count / 2;
    return EP(clamped)((sum > 0 ? sum + half : sum - half) / count, by->low, by->high);
}

static void EP(average_window)(struct EP(covered) over, int8_t *output, const struct EP(pool) *by)
{
    const int32_t places = over.lines * over.count;
    int32_t left = by->channels;
    for (; left >= 4; left -= 4, over.from += 4, output += 4) {
        int32_t sums[4] = {0, 0, 0, 0};
        EP(sum_places)(sums, over.from, over.lines, over.line, over.count, over.step);
        for (int32_t i = 0; i < 4; ++i) {
            output[i] = EP(average)(sums[i], places, by);
        }
    }
    for (; left > 0; --left, ++over.from, ++output) {
        *output = EP(average)(EP(sum_of_places)(over.from, over.lines, over.line, over.count, over.step), places, by);
    }
}

static void EP(max_window)(struct EP(covered) over, int8_t *output, const struct EP(pool) *by)
{
    int32_t left = by->channels;
#if EP_MVE
    const int8x16_t low = vdupq_n_s8((int8_t)by->low), high = vdupq_n_s8((int8_t)by->high);
    for (; left > 0; left -= 16, over.from += 16, output += 16) {
        const mve_pred16_t within = vctp8q((uint32_t)left);
        const int8_t *from = over.from;
        int8x16_t largest = low;
        for (int32_t i = over.lines; i > 0; --i, from += over.line) {
            const int8_t *at = from;
            for (int32_t j = over.count; j > 0; --j, at += over.step) {
                largest = vmaxq_s8(largest, vldrbq_z_s8(at, within));
            }
        }
        vstrbq_p_s8(output, vminq_s8(largest, high), within);
    }
#elif EP_DSP
    const uint32_t low = (uint32_t)(by->low & 0xff) * 0x01010101u;
    for (; left >= 4; left -= 4, over.from += 4, output += 4) {
        const int8_t *from = over.from;
        uint32_t largest = low;
        for (int32_t i = over.lines; i > 0; --i, from += over.line) {
            const int8_t *at = from;
            for (int32_t j = over.count; j > 0; --j, at += over.step) {
                largest = EP(max_of_bytes)(largest, EP(load_word)(at));
            }
        }
        for (int32_t i = 0; i < 4; ++i, largest >>= 8) {
            const int32_t value = (int8_t)(uint8_t)largest;
            output[i] = (int8_t)(value < by->high ? value : by->high);
        }
    }
#endif
    for (; left > 0; --left, ++over.from, ++output) {
        const int8_t *from = over.from;
        int32_t largest = by->low;
        for (int32_t i = over.lines; i > 0; --i, from += over.line) {
            const int8_t *at = from;
            for (int32_t j = over.count; j > 0; --j, at += over.step) {
                largest = *at > largest ? *at : largest;
            }
        }
        *output = (int8_t)(largest < by->high ? largest : by->high);
    }
}

void EP(average_pool)(const int8_t *input, int8_t *output, const struct EP(pool) *by)
{
    for (int32_t batch = 0; batch < by->batches; ++batch) {
        for (int32_t i = 0; i < by->height.output; ++i) {
            for (int32_t j = 0; j < by->width.output; ++j, output += by->channels) {
                EP(average_window)(EP(cover)(input, i, j, by), output, by);
            }
        }
        input += by->height.input * by->width.input * by->channels;
    }
}

void EP(max_pool)(const int8_t *input, int8_t *output, const struct EP(pool) *by)
{
    for (int32_t batch = 0; batch < by->batches; ++batch) {
        for (int32_t i = 0; i < by->height.output; ++i) {
            for (int32_t j = 0; j < by->width.output; ++j, output += by->channels) {
                EP(max_window)(EP(cover)(input, i, j, by), output, by);
            }
        }
        input += by->height.input * by->width.input * by->channels;
    }
}
