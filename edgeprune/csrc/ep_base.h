/* What all kernels share: names, which instructions there are, rounding products and clamps.
 *
 * C99, no libc. Everything is named by EP(name), so that two libraries link into one firmware. EP_DSP and EP_MVE say
 * which instructions there are; plain C is always there.
 */
#ifndef EP_BASE_H
#define EP_BASE_H

#include <stddef.h>
#include <stdint.h>

#ifndef EP_PREFIX
#define EP_PREFIX ep
#endif
#define EP_JOIN_(a, b) a##_##b
#define EP_JOIN(a, b) EP_JOIN_(a, b)
#define EP(name) EP_JOIN(EP_PREFIX, name)

#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 1)
#define EP_MVE 1
#else
#define EP_MVE 0
#endif
#if defined(__ARM_FEATURE_DSP) && __ARM_FEATURE_DSP
#define EP_DSP 1
#else
#define EP_DSP 0
#endif

/* Functions that are assembly from the first instruction to the last, and their parameters. */
#define EP_NAKED __attribute__((naked, noinline))
#define EP_UNUSED __attribute__((unused))

/* a * b / 2^31, halves rounded up; saturates in the one case that overflows, both INT32_MIN. */
static inline int32_t EP(high_product)(int32_t a, int32_t b)
{
    if (a == INT32_MIN && b == INT32_MIN) {
        return INT32_MAX;
    }
    const int64_t product = (int64_t)a * b;
    const int64_t half = product >= 0 ? (int64_t)1 << 30 : 1 - ((int64_t)1 << 30);
    return (int32_t)((product + half) / ((int64_t)1 << 31));
}

/* value / 2^exponent, halves rounded away from zero; exponent 0 to 31. */
static inline int32_t EP(divide_by_power)(int32_t value, int32_t exponent)
{
    const int32_t mask = (int32_t)(((uint32_t)1 << exponent) - 1);
    const int32_t half = (mask >> 1) + (value < 0);
    return (value >> exponent) + ((value & mask) > half);
}

/* value * multiplier * 2^(shift - 31), rounded twice; shift -31 to 30, the shifted value must fit 32 bits. */
static inline int32_t EP(rescale)(int32_t value, int32_t multiplier, int32_t shift)
{
    const int32_t left = shift > 0 ? shift : 0;
    const int32_t right = shift > 0 ? 0 : -shift;
    const int32_t shifted = (int32_t)((uint32_t)value << left);
    return EP(divide_by_power)(EP(high_product)(shifted, multiplier), right);
}

static inline int8_t EP(clamped)(int32_t value, int32_t low, int32_t high)
{
    const int32_t raised = value < low ? low : value;
    return (int8_t)(raised > high ? high : raised);
}

#endif
