/* Kernels of the generated library: int8 tensors in NHWC, exact to the TensorFlow Lite reference kernels.
 *
 * C99, no libc. Everything is named by EP(name), so that two libraries link into one firmware. EP_DSP and EP_MVE say
 * which instructions there are; plain C is always there.
 */
#ifndef EP_KERNELS_H
#define EP_KERNELS_H

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

#endif
