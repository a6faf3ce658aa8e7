#include "ep_table.h"

#include "ep_helium.h"

#if EP_MVE

/* Sixteen at a time; the last turn is of what is left. */
void EP(look_up)(const void *in, void *out, const void *table, int32_t count)
{
    const uint8_t *from = in;
    uint8_t *to = out;
    for (; count >= 16; count -= 16, from += 16, to += 16) {
        vstrbq_u8(to, vldrbq_gather_offset_u8(table, vldrbq_u8(from)));
    }
    if (count > 0) {
        const mve_pred16_t within = vctp8q((uint32_t)count);
        vstrbq_p_u8(to, vldrbq_gather_offset_z_u8(table, vldrbq_z_u8(from, within), within), within);
    }
}

#else

/* Four at a time: the loop costs as much as one value. */
void EP(look_up)(const void *in, void *out, const void *table, int32_t count)
{
    const uint8_t *from = in, *results = table;
    uint8_t *to = out;
    for (; count >= 4; count -= 4, from += 4, to += 4) {
        const uint8_t a = results[from[0]], b = results[from[1]], c = results[from[2]], d = results[from[3]];
        to[0] = a;
        to[1] = b;
        to[2] = c;
        to[3] = d;
    }
    for (int32_t i = 0; i < count; i++) {
        to[i] = results[from[i]];
    }
}

#endif

void EP(look_up_16)(const void *in, int16_t *out, const int16_t *table, int32_t count)
{
    const uint8_t *from = in;
    for (int32_t i = 0; i < count; i++) {
        out[i] = table[from[i]];
    }
}

void EP(clamp_all)(const int8_t *in, int8_t *out, int32_t low, int32_t high, int32_t count)
{
#if EP_MVE
    const int8x16_t lowest = vdupq_n_s8((int8_t)low), highest = vdupq_n_s8((int8_t)high);
    for (; count >= 16; count -= 16, in += 16, out += 16) {
        vstrbq_s8(out, vminq_s8(vmaxq_s8(vldrbq_s8(in), lowest), highest));
    }
#endif
    for (int32_t i = 0; i < count; i++) {
        out[i] = EP(clamped)(in[i], low, high);
    }
}

/* factors: zero point of the input, multiplier, shift, zero point of the output */
static int32_t EP(requantized)(int32_t value, const int32_t *factors, int32_t low, int32_t high)
{
    const int32_t result = EP(rescale)(value - factors[0], factors[1], factors[2]) + factors[3];
    const int32_t raised = result < low ? low : result;
    return raised > high ? high : raised;
}

void EP(requantize_16)(const int16_t *in, int16_t *out, const int32_t *factors, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        out[i] = (int16_t)EP(requantized)(in[i], factors, INT16_MIN, INT16_MAX);
    }
}

void EP(requantize_16_to_8)(const int16_t *in, int8_t *out, const int32_t *factors, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        out[i] = (int8_t)EP(requantized)(in[i], factors, INT8_MIN, INT8_MAX);
    }
}
