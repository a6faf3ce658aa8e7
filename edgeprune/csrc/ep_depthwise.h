/* Depthwise convolutions: each output channel is a filter of one input channel. */
#ifndef EP_DEPTHWISE_H
#define EP_DEPTHWISE_H

#include "ep_windows.h"

struct EP(addition); /* in ep_add.h */

/* Where a 3x3 filter goes. It slides along one spatial direction (steps), and then across the other one (lines).
 *
 * Of each direction: at most one position of padding before and one after.
 */
struct EP(sliding) {
    int32_t batches, channels;
    int32_t steps, lines;                     /* positions of the input */
    int32_t output_steps, output_lines;       /* positions of the output */
    int32_t step, line;                       /* bytes from one position of the input to the next */
    int32_t output_step, output_line;         /* bytes from one position of the output to the next */
    int32_t line_stride;                      /* the filter's stride across */
    int32_t pad_step, pad_line;               /* positions of padding before: 0 or 1 */
    int32_t zero;                             /* of the input */
    int32_t output_zero, low, high;           /* of the output: zero point, clamps */
};

/* Five words a channel, filter[line][step] int8:
 *   0: filter[0][0], filter[0][1], filter[1][0], filter[1][1]  (lowest byte first)
 *   1: filter[0][2], filter[2][0], filter[1][2], filter[2][1]
 *   2: filter[2][2], shift to the right (1 to 22), 0, 0
 *   3: twice the bias, from which the input's zero point times all weights is subtracted
 *   4: multiplier, 2^30 to 2^31 - 1 or 0
 * Sums are in (-2^30, 2^30) whatever the input. Stride 1 or 2 along. "saturated" is for clamps at -128 and 127; "added"
 * adds the value of `other` at the output's place, the output may lie over `other`.
 */
void EP(depthwise_stride_1_saturated)(const int8_t *input, int8_t *output, const int32_t *packed,
                                      const struct EP(sliding) *by);
void EP(depthwise_stride_2_saturated)(const int8_t *input, int8_t *output, const int32_t *packed,
                                      const struct EP(sliding) *by);
void EP(depthwise_stride_1_clamped)(const int8_t *input, int8_t *output, const int32_t *packed,
                                    const struct EP(sliding) *by);
void EP(depthwise_stride_2_clamped)(const int8_t *input, int8_t *output, const int32_t *packed,
                                    const struct EP(sliding) *by);
void EP(depthwise_stride_1_added)(const int8_t *input, int8_t *output, const int32_t *packed,
                                  const struct EP(sliding) *by, const int8_t *other,
                                  const struct EP(addition) *addition);
void EP(depthwise_stride_2_added)(const int8_t *input, int8_t *output, const int32_t *packed,
                                  const struct EP(sliding) *by, const int8_t *other,
                                  const struct EP(addition) *addition);

struct EP(depthwise) {
    int32_t batches, channels, multiplier; /* channels of the input; outputs of each of them */
    struct EP(windows) height, width;
    int32_t zero;                   /* of the input */
    int32_t output_zero, low, high; /* of the output: zero point, clamps */
    int32_t is_short;               /* sums are in (-2^30, 2^30), shifts are -22 to -1 */
};

/* Any filter: weights[channel of the output][height][width], and of each channel the bias and the factor of
 * `EP(rescale)`. With an addition, which may be null, the value of `other` at the
 * output's place is added; the output may lie over `other`. */
void EP(depthwise)(const int8_t *input, int8_t *output, const int8_t *weights, const int32_t *bias,
                   const int32_t *multipliers, const int8_t *shifts, const struct EP(depthwise) *by,
                   const int8_t *other, const struct EP(addition) *addition);

/* Of each channel of the output: its bias less the input's zero point times its weights, and the factor of `EP(rescale)`. */
enum { EP_STRIPS_BIAS, EP_STRIPS_MULTIPLIER, EP_STRIPS_SHIFT, EP_STRIPS_CHANNEL };

/* Where a filter of at most 255 taps goes, whose dilation along is 1. */
struct EP(strips) {
    int32_t batches, channels, multiplier; /* channels of the input; outputs of each of them */
    struct EP(windows) along, across;
    int32_t step, line;               /* bytes from one position of the input to the next; along below 9362 */
    int32_t output_step, output_line; /* bytes from one position of the output to the next */
    int32_t vectors;                  /* taps / 16, rounded up */
    int32_t strip_bytes;              /* of what the windows of a row cover, and of three more where there are lanes */
    int32_t zero;                     /* of the input */
    int32_t output_zero, low, high;   /* of the output: zero point, clamps */
    int32_t is_short;                 /* sums are in (-2^30, 2^30), shifts are -22 to -1 */
};

/* weights[channel of the output][tap]; turns[line of the filter][16 * vectors]: of each lane, in columns of a value of each
 * line across, the weight that it meets where that line is the first one's place. scratch: 16 * vectors + strip_bytes.
 * With an addition, which may be null, the value of `other` at the output's place is added; the output may lie over it. */
void EP(depthwise_strips)(const int8_t *input, int8_t *output, int8_t *scratch, const int8_t *weights,
                          const uint8_t *turns, const int32_t *channels, const struct EP(strips) *by,
                          const int8_t *other, const struct EP(addition) *addition);

#endif
