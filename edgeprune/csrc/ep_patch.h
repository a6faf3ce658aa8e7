/* Where a convolution reads: what its window covers at one output pixel. Shared by the kernels of all variants. */
#ifndef EP_PATCH_H
#define EP_PATCH_H

#include "ep_kernels.h"

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

/* An output pixel on its way through all of them, images included. */
struct EP(pixel) {
    const int8_t *image; /* of the group: its first channel */
    int32_t y, x;        /* of the window's first value; negative within padding */
    int32_t column, row; /* of the output */
};

static inline struct EP(pixel) EP(first_pixel)(const int8_t *image, const struct EP(window) *of)
{
    const struct EP(pixel) pixel = {image, -of->above, -of->before, 0, 0};
    return pixel;
}

static inline void EP(next_pixel)(struct EP(pixel) *pixel, const struct EP(window) *of)
{
    pixel->x += of->stride_x;
    if (++pixel->column < of->out_width) {
        return;
    }
    pixel->column = 0;
    pixel->x = -of->before;
    pixel->y += of->stride_y;
    if (++pixel->row < of->out_height) {
        return;
    }
    pixel->row = 0;
    pixel->y = -of->above;
    pixel->image += of->height * of->width * of->channels;
}

/* Whether a patch lies within the image, so that none of it is padding. */
static inline int EP(is_inside)(const struct EP(pixel) *at, const struct EP(window) *of)
{
    return at->y >= 0 && at->y + (of->kernel_height - 1) * of->dilation_y < of->height && at->x >= 0 &&
           at->x + (of->kernel_width - 1) * of->dilation_x < of->width;
}

static inline void EP(copy_bytes)(int8_t *to, const int8_t *from, int32_t count)
{
    for (; count >= 4; count -= 4, from += 4, to += 4) {
        __builtin_memcpy(to, from, 4);
    }
    for (; count > 0; --count) {
        *to++ = *from++;
    }
}

static inline void EP(fill_bytes)(int8_t *to, int32_t value, int32_t count)
{
    for (; count > 0; --count) {
        *to++ = (int8_t)value;
    }
}

/* A patch as it is, padding filled. */
static inline void EP(gather_bytes)(int8_t *to, const struct EP(pixel) *at, const struct EP(window) *of)
{
    const int32_t pixels = of->width;
    for (int32_t i = 0; i < of->kernel_height; ++i) {
        const int32_t y = at->y + i * of->dilation_y;
        const int8_t *line = at->image + y * pixels * of->channels;
        const int is_line = y >= 0 && y < of->height;
        if (is_line && of->depth == of->channels && of->dilation_x == 1 && at->x >= 0 &&
            at->x + of->kernel_width <= pixels) {
            const int32_t count = of->kernel_width * of->depth;
            EP(copy_bytes)(to, line + at->x * of->channels, count);
            to += count;
            continue;
        }
        for (int32_t j = 0; j < of->kernel_width; ++j, to += of->depth) {
            const int32_t x = at->x + j * of->dilation_x;
            if (is_line && x >= 0 && x < pixels) {
                EP(copy_bytes)(to, line + x * of->channels, of->depth);
            } else {
                EP(fill_bytes)(to, of->zero, of->depth);
            }
        }
    }
}

#endif
