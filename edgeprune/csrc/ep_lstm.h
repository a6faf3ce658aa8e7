/* A long short-term memory over a sequence: int8 values, int16 cells. */
#ifndef EP_LSTM_H
#define EP_LSTM_H

#include "ep_base.h"

/* Places in `sizes` and in `numbers` below. Steps count elements of the input or output. */
enum {
    EP_LSTM_BATCHES,
    EP_LSTM_TIMES,
    EP_LSTM_INPUTS,
    EP_LSTM_CELLS,
    EP_LSTM_IN_BATCH_STEP,
    EP_LSTM_IN_TIME_STEP,
    EP_LSTM_OUT_BATCH_STEP,
    EP_LSTM_OUT_TIME_STEP
};
enum {
    EP_LSTM_FACTORS = 0,     /* multiplier and shift of inputs, then of outputs before, for each gate: 16 numbers */
    EP_LSTM_CELL_SHIFT = 16, /* from the product of two gates to a cell */
    EP_LSTM_CELL_BITS,       /* integer bits of a cell, 0 to 6 */
    EP_LSTM_CELL_CLIP,       /* the greatest absolute value of a cell; 32768 where there is none */
    EP_LSTM_HIDDEN_MULTIPLIER,
    EP_LSTM_HIDDEN_SHIFT,
    EP_LSTM_HIDDEN_ZERO,
    EP_LSTM_STATE_ZERO /* what the outputs before the first are */
};

/* Gates in the order input, forget, cell, output. Each sequence starts from zero: no state is kept between calls.
 *
 * weights: (4, cells, inputs), then (4, cells, cells) for the outputs before
 * biases: (4, cells) for the inputs, then for the outputs before, each with its zero point folded in
 * scratch: 11 bytes a cell, aligned to 2
 */
void EP(lstm)(const int8_t *in, int8_t *out, const int8_t *weights, const int32_t *biases, const int32_t *sizes,
              const int32_t *numbers, void *scratch);

#endif
