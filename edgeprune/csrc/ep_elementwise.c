#include "ep_elementwise.h"

#include "ep_add.h"
#include "ep_helium.h"
#include "ep_lanes.h"

/* Both tensors, at the start of a run. */
struct EP(operands) {
    const int8_t *first, *second;
    int32_t first_step, second_step, run;
};

typedef void (*EP(run_function))(struct EP(operands) of, int8_t *output, const void *by);

static void EP(over_runs)(const int8_t *first, const int8_t *second, int8_t *output, const struct EP(broadcast) *over,
                          EP(run_function) function, const void *by)
{
    int32_t at[4] = {0, 0, 0, 0};
    struct EP(operands) of = {first, second, over->first_step, over->second_step, over->run};
    for (int32_t axis = 3; axis >= 0;) {
        function(of, output, by);
        output += over->run;
        for (axis = 3; axis >= 0; --axis) {
            of.first += over->first_steps[axis];
            of.second += over->second_steps[axis];
            if (++at[axis] < over->sizes[axis]) {
                break;
            }
            of.first -= over->sizes[axis] * over->first_steps[axis];
            of.second -= over->sizes[axis] * over->second_steps[axis];
            at[axis] = 0;
        }
    }
}

static void EP(add_one_run)(struct EP(operands) of, int8_t *output, const void *addition)
{
    const struct EP(addition) by = *(const struct EP(addition) *)addition; /* stays in registers across stores */
    if (of.first_step && of.second_step) {
#if EP_MVE
        EP(add_run_lanes)(of.first, of.second, output, of.run, &by);
#else
        EP(add_run)(of.first, of.second, output, of.run, &by);
#endif
        return;
    }
    for (; of.run > 0; --of.run, of.first += of.first_step, of.second += of.second_step) {
        *output++ = EP(added)(*of.first, *of.second, &by);
    }
}

/* As `EP(added_wide)`, but the difference: of the first tensor, so that the sign depends on which one is the wide one. */
static inline int8_t EP(subtracted_wide)(int32_t wide, int32_t narrow, int32_t sign, const struct EP(addition) *by)
{
    const int32_t scaled = EP(rescaled)(narrow * (1 << 21) + by->narrow_offset, by->narrow_multiplier, by->narrow_half,
                                        by->narrow_shift);
    const int32_t doubled = (wide * (1 << 20) + by->wide_offset - scaled * 2) * sign;
    return EP(clamped)(EP(rescaled)(doubled, by->multiplier, by->half, by->shift) + by->zero, by->low, by->high);
}

static void EP(subtract_one_run)(struct EP(operands) of, int8_t *output, const void *addition)
{
    const struct EP(addition) by = *(const struct EP(addition) *)addition;
    const int32_t sign = by.computed_is_wide ? 1 : -1;
    const int8_t *wide = by.computed_is_wide ? of.first : of.second;
    const int8_t *narrow = by.computed_is_wide ? of.second : of.first;
    const int32_t wide_step = by.computed_is_wide ? of.first_step : of.second_step;
    const int32_t narrow_step = by.computed_is_wide ? of.second_step : of.first_step;
    for (; of.run > 0; --of.run, wide += wide_step, narrow += narrow_step) {
        *output++ = EP(subtracted_wide)(*wide, *narrow, sign, &by);
    }
}

#if EP_MVE

/* The whole fours of a run in which both tensors go on; returns their values. */
static int32_t EP(multiply_fours)(struct EP(operands) of, int8_t *output, const struct EP(product) *given)
{
    const struct EP(product) by = *given;
    const int32x4_t low = vdupq_n_s32(by.low), high = vdupq_n_s32(by.high), rounded = vdupq_n_s32(by.is_rounded);
    const int32_t count = of.first_step && of.second_step ? of.run / 4 * 4 : 0;
    for (int32_t left = count; left > 0; left -= 4, of.first += 4, of.second += 4, output += 4) {
        const int32x4_t first = vaddq_n_s32(vldrbq_s32(of.first), by.first_offset);
        const int32x4_t second = vaddq_n_s32(vldrbq_s32(of.second), by.second_offset);
        const int32x4_t product = vmulq_n_s32(vmulq_s32(first, second), by.power / 2); /* which vqrdmlah doubles */
        const int32x4_t below = vandq_s32(vshrq_n_s32(product, 31), rounded);
        const int32x4_t scaled = vqrdmlahq_n_s32(vaddq_n_s32(below, by.offset), product, by.multiplier);
        vstrbq_s32(output, EP(clamp_lanes)(vshlq_r_s32(scaled, -by.shift), low, high));
    }
    return count;
}

#else

static int32_t EP(multiply_fours)(struct EP(operands) of, int8_t *output, const struct EP(product) *by)
{
    (void)of, (void)output, (void)by;
    return 0;
}

#endif

static void EP(multiply_one_run)(struct EP(operands) of, int8_t *output, const void *product)
{
    const struct EP(product) by = *(const struct EP(product) *)product;
    const int32_t done = EP(multiply_fours)(of, output, &by);
    of.run -= done;
    of.first += of.first_step * done;
    of.second += of.second_step * done;
    output += done;
    for (; of.run > 0; --of.run, of.first += of.first_step, of.second += of.second_step) {
        const int32_t doubled = (*of.first + by.first_offset) * (*of.second + by.second_offset) * by.power;
        const int32_t high = EP(high_product_plus)(doubled, by.multiplier, by.offset);
        *output++ = EP(clamped)((high + ((doubled >> 31) & by.is_rounded)) >> by.shift, by.low, by.high);
    }
}

/* Ranges: a value less its zero point is below 2^8, times 128 below 2^15, and half of that at twice the larger scale; so a
 * difference is at most 255 * 128, and twice its square below 2^31. */
static void EP(squared_difference_of_run)(struct EP(operands) of, int8_t *output, const void *squared)
{
    const struct EP(squared) by = *(const struct EP(squared) *)squared;
    for (; of.run > 0; --of.run, of.first += of.first_step, of.second += of.second_step) {
        const int32_t first = (*of.first - by.first_zero) * 128, second = (*of.second - by.second_zero) * 128;
        const int32_t difference = EP(rescale)(first, by.first_multiplier, by.first_shift) -
                                   EP(rescale)(second, by.second_multiplier, by.second_shift);
        const int32_t square = EP(rescale)(difference * difference, by.multiplier, by.shift);
        *output++ = EP(clamped)(square + by.output_zero, -128, 127);
    }
}

static void EP(prelu_of_run)(struct EP(operands) of, int8_t *output, const void *prelu)
{
    const struct EP(prelu) by = *(const struct EP(prelu) *)prelu;
    for (; of.run > 0; --of.run, of.first += of.first_step, of.second += of.second_step) {
        const int32_t value = *of.first - by.zero;
        const int32_t scaled = value >= 0 ? EP(rescale)(value, by.multiplier, by.shift)
                                          : EP(rescale)(value * (*of.second - by.slope_zero), by.slope_multiplier,
                                                        by.slope_shift);
        *output++ = EP(clamped)(scaled + by.output_zero, -128, 127);
    }
}

static void EP(maximum_of_run)(struct EP(operands) of, int8_t *output, const void *by)
{
    (void)by;
#if EP_MVE
    for (; of.first_step && of.second_step && of.run > 0; of.run -= 16, of.first += 16, of.second += 16, output += 16) {
        const mve_pred16_t within = vctp8q((uint32_t)of.run);
        const int8x16_t first = vldrbq_z_s8(of.first, within), second = vldrbq_z_s8(of.second, within);
        vstrbq_p_s8(output, vmaxq_s8(first, second), within);
    }
#elif EP_DSP
    for (; of.first_step && of.second_step && of.run >= 4; of.run -= 4, of.first += 4, of.second += 4, output += 4) {
        const uint32_t word = EP(max_of_bytes)(EP(load_word)(of.first), EP(load_word)(of.second));
        __builtin_memcpy(output, &word, 4);
    }
#endif
    for (; of.run > 0; --of.run, of.first += of.first_step, of.second += of.second_step) {
        *output++ = *of.first > *of.second ? *of.first : *of.second;
    }
}

static void EP(minimum_of_run)(struct EP(operands) of, int8_t *output, const void *by)
{
    (void)by;
#if EP_MVE
    for (; of.first_step && of.second_step && of.run > 0; of.run -= 16, of.first += 16, of.second += 16, output += 16) {
        const mve_pred16_t within = vctp8q((uint32_t)of.run);
        const int8x16_t first = vldrbq_z_s8(of.first, within), second = vldrbq_z_s8(of.second, within);
        vstrbq_p_s8(output, vminq_s8(first, second), within);
    }
#elif EP_DSP
    for (; of.first_step && of.second_step && of.run >= 4; of.run -= 4, of.first += 4, of.second += 4, output += 4) {
        const uint32_t word = EP(min_of_bytes)(EP(load_word)(of.first), EP(load_word)(of.second));
        __builtin_memcpy(output, &word, 4);
    }
#endif
    for (; of.run > 0; --of.run, of.first += of.first_step, of.second += of.second_step) {
        *output++ = *of.first < *of.second ? *of.first : *of.second;
    }
}

void EP(add)(const int8_t *first, const int8_t *second, int8_t *output, const struct EP(broadcast) *over,
             const struct EP(addition) *by)
{
    EP(over_runs)(first, second, output, over, EP(add_one_run), by);
}

void EP(subtract)(const int8_t *first, const int8_t *second, int8_t *output, const struct EP(broadcast) *over,
                  const struct EP(addition) *by)
{
    EP(over_runs)(first, second, output, over, EP(subtract_one_run), by);
}

void EP(multiply)(const int8_t *first, const int8_t *second, int8_t *output, const struct EP(broadcast) *over,
                  const struct EP(product) *by)
{
    EP(over_runs)(first, second, output, over, EP(multiply_one_run), by);
}

void EP(squared_difference)(const int8_t *first, const int8_t *second, int8_t *output, const struct EP(broadcast) *over,
                            const struct EP(squared) *by)
{
    EP(over_runs)(first, second, output, over, EP(squared_difference_of_run), by);
}

void EP(prelu)(const int8_t *first, const int8_t *second, int8_t *output, const struct EP(broadcast) *over,
               const struct EP(prelu) *by)
{
    EP(over_runs)(first, second, output, over, EP(prelu_of_run), by);
}

void EP(maximum)(const int8_t *first, const int8_t *second, int8_t *output, const struct EP(broadcast) *over)
{
    EP(over_runs)(first, second, output, over, EP(maximum_of_run), NULL);
}

void EP(minimum)(const int8_t *first, const int8_t *second, int8_t *output, const struct EP(broadcast) *over)
{
    EP(over_runs)(first, second, output, over, EP(minimum_of_run), NULL);
}
