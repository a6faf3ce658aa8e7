/* Transposed convolution. */
#ifndef EP_TRANSPOSE_CONV_H
#define EP_TRANSPOSE_CONV_H

#include "ep_base.h"

/* Places in `sizes` below. */
enum {
    EP_TRANSPOSE_BATCHES,
    EP_TRANSPOSE_HEIGHT, /* of the input */
    EP_TRANSPOSE_WIDTH,
    EP_TRANSPOSE_CHANNELS,
    EP_TRANSPOSE_OUT_HEIGHT,
    EP_TRANSPOSE_OUT_WIDTH,
    EP_TRANSPOSE_OUT_CHANNELS,
    EP_TRANSPOSE_KERNEL_HEIGHT,
    EP_TRANSPOSE_KERNEL_WIDTH,
    EP_TRANSPOSE_STRIDE_HEIGHT,
    EP_TRANSPOSE_STRIDE_WIDTH,
    EP_TRANSPOSE_PAD_TOP,
    EP_TRANSPOSE_PAD_LEFT,
    EP_TRANSPOSE_ZERO_IN,
    EP_TRANSPOSE_ZERO_OUT,
    EP_TRANSPOSE_LOW, /* the result is held to [low, high] */
    EP_TRANSPOSE_HIGH
};

/* weights: (out channels, kernel height, kernel width, channels)
 * channels: bias, multiplier and shift of each output channel
 */
void EP(transpose_conv)(const int8_t *in, int8_t *out, const int8_t *weights, const int32_t *channels,
                        const int32_t *sizes);

#endif
