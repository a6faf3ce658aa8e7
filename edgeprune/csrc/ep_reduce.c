#include "ep_reduce.h"

#include "ep_lanes.h"

static int8_t EP(reduced_output)(int32_t sum, const struct EP(reduction) *by)
{
    return EP(clamped)(EP(rescale)(sum + by->offset, by->multiplier, by->shift) + by->output_zero, -128, 127);
}

/* All outputs along the inner axis. */
static void EP(reduce_inner)(const int8_t *input, int8_t *output, const struct EP(reduction) *by)
{
    int32_t left = by->inner;
    for (; left >= 4; left -= 4, input += 4, output += 4) {
        int32_t sums[4] = {0, 0, 0, 0};
        for (int32_t i = 0; i < by->reduced[0]; ++i) {
            EP(sum_places)(sums, input + i * by->reduced_step[0], by->reduced[1], by->reduced_step[1], by->reduced[2],
                           by->reduced_step[2]);
        }
        for (int32_t i = 0; i < 4; ++i) {
            output[i] = EP(reduced_output)(sums[i], by);
        }
    }
    for (; left > 0; --left, ++input, ++output) {
        int32_t sum = 0;
        for (int32_t i = 0; i < by->reduced[0]; ++i) {
            sum += EP(sum_of_places)(input + i * by->reduced_step[0], by->reduced[1], by->reduced_step[1],
                                     by->reduced[2], by->reduced_step[2]);
        }
        *output = EP(reduced_output)(sum, by);
    }
}

void EP(reduce)(const int8_t *input, int8_t *output, const struct EP(reduction) *by)
{
    for (int32_t i = 0; i < by->kept[0]; ++i) {
        for (int32_t j = 0; j < by->kept[1]; ++j) {
            for (int32_t k = 0; k < by->kept[2]; ++k, output += by->inner) {
                EP(reduce_inner)(input + i * by->kept_step[0] + j * by->kept_step[1] + k * by->kept_step[2], output, by);
            }
        }
    }
}

/* One output: the greatest of the values with all bits flipped or none; the least is what is greatest flipped. */
static int8_t EP(extreme)(const int8_t *input, const struct EP(reduction) *by, int32_t flip)
{
    int32_t best = INT8_MIN;
    for (int32_t i = 0; i < by->reduced[0]; ++i) {
        for (int32_t j = 0; j < by->reduced[1]; ++j) {
            const int8_t *row = input + i * by->reduced_step[0] + j * by->reduced_step[1];
            for (int32_t k = 0; k < by->reduced[2]; ++k, row += by->reduced_step[2]) {
                const int32_t value = *row ^ flip;
                best = value > best ? value : best;
            }
        }
    }
    return (int8_t)(best ^ flip);
}

static void EP(extremes)(const int8_t *input, int8_t *output, const struct EP(reduction) *by, int32_t flip)
{
    for (int32_t i = 0; i < by->kept[0]; ++i) {
        for (int32_t j = 0; j < by->kept[1]; ++j) {
            for (int32_t k = 0; k < by->kept[2]; ++k) {
                const int8_t *start = input + i * by->kept_step[0] + j * by->kept_step[1] + k * by->kept_step[2];
                for (int32_t at = 0; at < by->inner; ++at) {
                    *output++ = EP(extreme)(start + at, by, flip);
                }
            }
        }
    }
}

void EP(greatest)(const int8_t *input, int8_t *output, const struct EP(reduction) *by)
{
    EP(extremes)(input, output, by, 0);
}

void EP(least)(const int8_t *input, int8_t *output, const struct EP(reduction) *by)
{
    EP(extremes)(input, output, by, -1);
}
