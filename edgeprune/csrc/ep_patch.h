/* Where a convolution reads: what its window covers at one output pixel. Shared by the kernels of all variants. */
#ifndef EP_PATCH_H
#define EP_PATCH_H

#include "ep_base.h"
#include "ep_bytes.h"

/* Shapes of a convolution. A patch has kernel_height * kernel_width * depth values in that order. */
struct EP(window) {
    int32_t batches, height, width, channels; /* of the input */
    int32_t depth;                            /* channels of one group: channels / groups */
    int32_t out_height, out_width;
    int32_t kernel_height, kernel_width;
    int32_t stride_y, stride_x, dilation_y, dilation_x;
    int32_t above, before; /* rows and columns of padding at the top and on the left */
    int32_t zero;          /* -128 to 127: the input's zero point, which padding is filled with */
};

/* Whether a line of a patch inside the image is one run of bytes there. */
static inline int EP(are_lines_runs)(const struct EP(window) *of)
{
    return of->kernel_width == 1 || (of->dilation_x == 1 && of->depth == of->channels);
}

/* One line of a patch: kernel_width * depth values in a row, from pixel (y, x) on, either of which may be outside.
 *
 * Returns where they lie, in the image or in `bytes`, where they are put together if they do not follow each other in the
 * image. `image` is at the group's first channel.
 */
static inline const int8_t *EP(patch_line)(const int8_t *image, int32_t y, int32_t x, int8_t *bytes,
                                           const struct EP(window) *of)
{
    const int32_t depth = of->depth, step = of->dilation_x, end = x + of->kernel_width * step;
    const int is_line = y >= 0 && y < of->height;
    const int8_t *line = is_line ? image + y * of->width * of->channels : image;
    if (is_line && x >= 0 && end - step < of->width && EP(are_lines_runs)(of)) {
        return line + x * of->channels;
    }
    int8_t *to = bytes;
    for (; x < end; x += step, to += depth) {
        if (is_line && x >= 0 && x < of->width) {
            EP(copy_bytes)(to, line + x * of->channels, depth);
        } else {
            EP(fill_bytes)(to, of->zero, depth);
        }
    }
    return bytes;
}

#endif
