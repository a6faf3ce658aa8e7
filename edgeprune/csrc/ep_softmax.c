#include "ep_softmax.h"

/* 1 / (1 + fraction), both with 31 fraction bits, fraction in [0, 1): three Newton steps from 48/17 - 32/17 d.
 *
 * d = (1 + fraction) / 2 has 31 fraction bits, its reciprocal x in [1, 2] has 29, so that x has the bits of x / 4.
 */
static int32_t EP(reciprocal)(int32_t fraction)
{
    const int32_t d = (int32_t)(((int64_t)fraction + ((int64_t)1 << 31)) >> 1);
    int32_t x = 1515870810 + EP(high_product)(d, -1010580540);
    for (int32_t i = 0; i < 3; i++) {
        const int32_t error = ((int32_t)1 << 29) - EP(high_product)(d, x);
        x += EP(high_product)(x, error) * 4;
    }
    return x >= (int32_t)1 << 30 ? INT32_MAX : x * 2;
}

static int32_t EP(leading_zeros)(uint32_t value)
{
    int32_t zeros = 0;
    for (; value < (uint32_t)1 << 31; value <<= 1) {
        zeros++;
    }
    return zeros;
}

static void EP(softmax_row)(const int8_t *in, int8_t *out, const int32_t *exponentials, int32_t count, int32_t depth)
{
    int32_t most = in[0];
    for (int32_t i = 1; i < depth; i++) {
        most = in[i] > most ? in[i] : most;
    }
    uint32_t sum = 0; /* 19 fraction bits: at most 4095 * 2^19 */
    for (int32_t i = 0; i < depth; i++) {
        if (most - in[i] < count) {
            sum += (uint32_t)EP(divide_by_power)(exponentials[most - in[i]], 12);
        }
    }
    const int32_t zeros = EP(leading_zeros)(sum);
    const int32_t factor = EP(reciprocal)((int32_t)((sum << zeros) & INT32_MAX));
    const int32_t shift = 35 - zeros; /* to 8 fraction bits */
    for (int32_t i = 0; i < depth; i++) {
        int32_t result = 0;
        if (most - in[i] < count && shift < 32) { /* above, not even the greatest rounds to one step */
            const int32_t product = EP(high_product)(factor, exponentials[most - in[i]]);
            result = EP(divide_by_power)(product, shift);
        }
        out[i] = EP(clamped)(result - 128, -128, 127);
    }
}

void EP(softmax)(const int8_t *in, int8_t *out, const int32_t *exponentials, int32_t count, int32_t rows, int32_t depth)
{
    for (int32_t row = 0; row < rows; row++) {
        EP(softmax_row)(in + row * depth, out + row * depth, exponentials, count, depth);
    }
}
