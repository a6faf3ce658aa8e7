#include "ep_lstm.h"

static inline int32_t EP(short_of)(int32_t value)
{
    const int32_t raised = value < INT16_MIN ? INT16_MIN : value;
    return raised > INT16_MAX ? INT16_MAX : raised;
}

/* a * b with 15 fraction bits, halves rounded up; neither is -1, or not both. */
static inline int32_t EP(product_16)(int32_t a, int32_t b)
{
    return (a * b + (1 << 14)) >> 15;
}

/* exp(value) with 15 fraction bits, for value <= 0 with `bits` integer bits, 1 to 7.
 *
 * The remainder of the division by a quarter, in [-1/4, 0), goes through a Taylor polynomial around -1/8; each bit of the
 * quotient is a factor exp(-1/4), exp(-1/2), ...
 */
static int32_t EP(exponential_16)(int32_t value, int32_t bits)
{
    static const int16_t factors[] = {25520, 19875, 12055, 4435, 600, 11, 0, 0, 0};
    if (value == 0) {
        return INT16_MAX;
    }
    const int32_t fraction_bits = 15 - bits;
    const int32_t quarter = (int32_t)1 << (fraction_bits - 2);
    const int32_t rest = (value & (quarter - 1)) - quarter;
    const int32_t x = rest * ((int32_t)1 << bits) + (1 << 12);
    const int32_t square = EP(product_16)(x, x);
    const int32_t cube = EP(product_16)(square, x), fourth = EP(product_16)(square, square);
    const int32_t high = EP(product_16)(EP(divide_by_power)(fourth, 2) + cube, 10923) + square;
    int32_t result = 28918 + EP(product_16)(28918, x + EP(divide_by_power)(high, 1));
    const int32_t quarters = (rest - value) >> (fraction_bits - 2);
    for (int32_t i = 0; i < bits + 2; i++) {
        if (quarters >> i & 1) {
            result = EP(product_16)(result, factors[i]);
        }
    }
    return result;
}

/* 2 / (1 + fraction) with 13 fraction bits, less 1, for a fraction with 15: Newton steps from 48/17 - 32/17 d. */
static int32_t EP(reciprocal_16)(int32_t fraction)
{
    const int32_t d = (fraction + (1 << 15)) >> 1; /* half the denominator */
    int32_t x = 23130 + EP(product_16)(d, -15420);
    for (int32_t i = 0; i < 3; i++) {
        x += EP(short_of)(EP(product_16)(x, (1 << 13) - EP(product_16)(d, x)) * 4);
    }
    return x;
}

/* 15 fraction bits of a value with 3 integer bits. */
static int32_t EP(logistic_16)(int32_t value)
{
    if (value == 0) {
        return 1 << 14;
    }
    const int32_t positive = EP(short_of)(EP(reciprocal_16)(EP(exponential_16)(value < 0 ? value : -value, 3)) * 2);
    return value > 0 ? positive : INT16_MAX - positive;
}

/* 15 fraction bits of a value with `bits` integer bits, 0 to 6. */
static int32_t EP(tanh_16)(int32_t value, int32_t bits)
{
    if (value == 0) {
        return 0;
    }
    /* exp of twice the value: the same bits with one more integer bit */
    const int32_t power = EP(exponential_16)(value < 0 ? value : -value, bits + 1);
    const int32_t positive = EP(short_of)((EP(reciprocal_16)(power) - (1 << 13)) * 4);
    return value > 0 ? positive : -positive;
}

static int32_t EP(lstm_sum)(const int8_t *values, const int8_t *weights, int32_t bias, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        bias += values[i] * weights[i];
    }
    return bias;
}

/* The sums of all gates, with 3 integer bits: int16 (4, cells). */
static void EP(lstm_gates)(const int8_t *in, const int8_t *before, const int8_t *weights, const int32_t *biases,
                           const int32_t *sizes, const int32_t *numbers, int16_t *gates)
{
    const int32_t inputs = sizes[EP_LSTM_INPUTS], cells = sizes[EP_LSTM_CELLS];
    const int8_t *recurrent = weights + 4 * cells * inputs;
    for (int32_t gate = 0; gate < 4; gate++) {
        const int32_t *of_input = numbers + EP_LSTM_FACTORS + 2 * gate, *of_before = of_input + 8;
        for (int32_t i = 0; i < cells; i++, weights += inputs, recurrent += cells, biases++) {
            const int32_t sum = EP(lstm_sum)(in, weights, biases[0], inputs);
            const int32_t back = EP(lstm_sum)(before, recurrent, biases[4 * cells], cells);
            const int32_t first = EP(short_of)(EP(rescale)(sum, of_input[0], of_input[1]));
            *gates++ = (int16_t)EP(short_of)(first + EP(rescale)(back, of_before[0], of_before[1]));
        }
    }
}

/* Cells and outputs after one step in time. */
static void EP(lstm_step)(const int16_t *gates, int16_t *cell, int8_t *out, int32_t cells, const int32_t *numbers)
{
    const int32_t clip = numbers[EP_LSTM_CELL_CLIP];
    for (int32_t i = 0; i < cells; i++) {
        const int32_t entered = EP(logistic_16)(gates[i]) * EP(tanh_16)(gates[2 * cells + i], 3);
        const int32_t kept = EP(divide_by_power)(EP(logistic_16)(gates[cells + i]) * cell[i], 15);
        int32_t state = EP(short_of)(kept + EP(divide_by_power)(entered, numbers[EP_LSTM_CELL_SHIFT]));
        state = state > clip ? clip : state < -clip ? -clip : state;
        cell[i] = (int16_t)state;
        const int32_t left = EP(logistic_16)(gates[3 * cells + i]) * EP(tanh_16)(state, numbers[EP_LSTM_CELL_BITS]);
        const int32_t hidden = EP(rescale)(left, numbers[EP_LSTM_HIDDEN_MULTIPLIER], numbers[EP_LSTM_HIDDEN_SHIFT]);
        out[i] = EP(clamped)(hidden + numbers[EP_LSTM_HIDDEN_ZERO], -128, 127);
    }
}

void EP(lstm)(const int8_t *in, int8_t *out, const int8_t *weights, const int32_t *biases, const int32_t *sizes,
              const int32_t *numbers, void *scratch)
{
    const int32_t cells = sizes[EP_LSTM_CELLS];
    int16_t *cell = scratch, *gates = cell + cells;
    int8_t *start = (int8_t *)(gates + 4 * cells);
    for (int32_t batch = 0; batch < sizes[EP_LSTM_BATCHES]; batch++) {
        const int8_t *from = in + batch * sizes[EP_LSTM_IN_BATCH_STEP], *before = start;
        int8_t *to = out + batch * sizes[EP_LSTM_OUT_BATCH_STEP];
        for (int32_t i = 0; i < cells; i++) {
            cell[i] = 0;
            start[i] = (int8_t)numbers[EP_LSTM_STATE_ZERO];
        }
        for (int32_t time = 0; time < sizes[EP_LSTM_TIMES]; time++) {
            EP(lstm_gates)(from, before, weights, biases, sizes, numbers, gates);
            EP(lstm_step)(gates, cell, to, cells, numbers);
            before = to;
            from += sizes[EP_LSTM_IN_TIME_STEP];
            to += sizes[EP_LSTM_OUT_TIME_STEP];
        }
    }
}
