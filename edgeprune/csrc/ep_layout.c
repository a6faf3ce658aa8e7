#include "ep_layout.h"

#include "ep_bytes.h"

/* Compilers turn loops that copy or fill into calls of libc, which there need not be: they leave alone a loop with this. */
#define EP_KEEP_LOOP __asm__ volatile("")

/* Words need not be aligned where the core can load and store such words; the builtin then is one instruction. */
#if defined(__arm__) && !defined(__ARM_FEATURE_UNALIGNED)
#define EP_ANY_WORDS 0
#else
#define EP_ANY_WORDS 1
#endif

#if EP_MVE

static inline void EP(copy_run)(const uint8_t *from, uint8_t *to, int32_t bytes)
{
    EP(copy_bytes)((int8_t *)to, (const int8_t *)from, bytes);
}

#else

static inline void EP(copy_run)(const uint8_t *from, uint8_t *to, int32_t bytes)
{
#if EP_ANY_WORDS
    for (; bytes >= 16; bytes -= 16, from += 16, to += 16) {
        uint32_t a, b, c, d;
        __builtin_memcpy(&a, from, 4);
        __builtin_memcpy(&b, from + 4, 4);
        __builtin_memcpy(&c, from + 8, 4);
        __builtin_memcpy(&d, from + 12, 4);
        __builtin_memcpy(to, &a, 4);
        __builtin_memcpy(to + 4, &b, 4);
        __builtin_memcpy(to + 8, &c, 4);
        __builtin_memcpy(to + 12, &d, 4);
        EP_KEEP_LOOP;
    }
    for (; bytes >= 4; bytes -= 4, from += 4, to += 4) {
        uint32_t a;
        __builtin_memcpy(&a, from, 4);
        __builtin_memcpy(to, &a, 4);
        EP_KEEP_LOOP;
    }
#endif
    for (; bytes > 0; bytes--) {
        *to++ = *from++;
        EP_KEEP_LOOP;
    }
}

#endif

void EP(copy)(const void *from, void *to, int32_t bytes)
{
    EP(copy_run)(from, to, bytes);
}

void EP(fill)(void *to, const void *value, int32_t element_bytes, int32_t count)
{
    const uint8_t *one = value;
    uint8_t *target = to;
#if EP_ANY_WORDS
    if (element_bytes == 1) { /* four at once: tensors of bytes are the usual case */
        const uint32_t four = *one * 0x01010101u;
        for (; count >= 4; count -= 4, target += 4) {
            __builtin_memcpy(target, &four, 4);
            EP_KEEP_LOOP;
        }
    }
#endif
    for (; count > 0; count--, target += element_bytes) {
        EP(copy_run)(one, target, element_bytes);
    }
}

/* One axis of runs. Single bytes are what transposes of int8 tensors are made of. */
static inline void EP(copy_axis)(const uint8_t *from, uint8_t *to, const int32_t *axis, int32_t run)
{
    const int32_t count = axis[0], from_step = axis[1], to_step = axis[2];
    if (run == 1) {
        for (int32_t i = 0; i < count; i++, from += from_step, to += to_step) {
            *to = *from;
            EP_KEEP_LOOP;
        }
    } else {
        for (int32_t i = 0; i < count; i++, from += from_step, to += to_step) {
            EP(copy_run)(from, to, run);
        }
    }
}

void EP(copy_strided)(const void *from, void *to, const int32_t *axes, int32_t rank, int32_t run)
{
    const int32_t outer = rank - 1;
    const uint8_t *source = from;
    uint8_t *target = to;
    int32_t left[EP_MOST_AXES];
    for (int32_t i = 0; i < outer; i++) {
        left[i] = axes[3 * i];
        EP_KEEP_LOOP;
    }
    for (;;) {
        EP(copy_axis)(source, target, axes + 3 * outer, run);
        int32_t i = outer - 1;
        for (; i >= 0; i--) { /* the next index, the innermost of the outer axes first */
            const int32_t *axis = axes + 3 * i;
            source += axis[1];
            target += axis[2];
            if (--left[i] > 0) {
                break;
            }
            left[i] = axis[0];
            source -= axis[0] * axis[1];
            target -= axis[0] * axis[2];
        }
        if (i < 0) {
            return;
        }
    }
}

void EP(gather)(const void *from, void *to, int32_t blocks, int32_t block_bytes, const int32_t *rows, int32_t row_count,
                const int32_t *columns, int32_t column_count, int32_t run)
{
    const uint8_t *block = from;
    uint8_t *target = to;
    for (int32_t i = 0; i < blocks; i++, block += block_bytes) {
        for (int32_t y = 0; y < row_count; y++) {
            const uint8_t *row = block + rows[y];
            for (int32_t x = 0; x < column_count; x++, target += run) {
                EP(copy_run)(row + columns[x], target, run);
            }
        }
    }
}
