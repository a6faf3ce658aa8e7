/* What stands around a library when it is linked for counting: the caller's buffers, so that the linker proves that
 * they fit, and the four functions that every C compiler may call. */
#include <stddef.h>
#include <stdint.h>

int8_t edgeprune_input[INPUT_BYTES] __attribute__((aligned(16)));
int8_t edgeprune_output[OUTPUT_BYTES] __attribute__((aligned(16)));
int8_t edgeprune_arena[ARENA_BYTES] __attribute__((aligned(16)));

void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int value, size_t size);
int memcmp(const void *a, const void *b, size_t size);

/* A loop that copies must not become a call of the function it is in. */
#if defined(__clang__)
#define OWN __attribute__((no_builtin))
#else
#define OWN __attribute__((optimize("no-tree-loop-distribute-patterns")))
#endif

typedef uint32_t __attribute__((may_alias)) word;

OWN void *memcpy(void *restrict to, const void *restrict from, size_t size)
{
    uint8_t *target = to;
    const uint8_t *source = from;
    if ((((uintptr_t)target | (uintptr_t)source) & 3) == 0) {
        for (; size >= 16; size -= 16, target += 16, source += 16) {
            const word *in = (const word *)(const void *)source;
            word *out = (word *)(void *)target;
            const word a = in[0], b = in[1], c = in[2], d = in[3];
            out[0] = a;
            out[1] = b;
            out[2] = c;
            out[3] = d;
        }
        for (; size >= 4; size -= 4, target += 4, source += 4) {
            *(word *)(void *)target = *(const word *)(const void *)source;
        }
    }
    for (; size > 0; size--) {
        *target++ = *source++;
    }
    return to;
}

OWN void *memmove(void *to, const void *from, size_t size)
{
    uint8_t *target = to;
    const uint8_t *source = from;
    if ((uintptr_t)target - (uintptr_t)source >= size) {
        return memcpy(to, from, size);
    }
    while (size > 0) {
        size--;
        target[size] = source[size];
    }
    return to;
}

OWN void *memset(void *to, int value, size_t size)
{
    uint8_t *target = to;
    const word filled = (uint32_t)(uint8_t)value * 0x01010101u;
    if (((uintptr_t)target & 3) == 0) {
        for (; size >= 4; size -= 4, target += 4) {
            *(word *)(void *)target = filled;
        }
    }
    for (; size > 0; size--) {
        *target++ = (uint8_t)value;
    }
    return to;
}

OWN int memcmp(const void *a, const void *b, size_t size)
{
    const uint8_t *left = a;
    const uint8_t *right = b;
    for (; size > 0; size--, left++, right++) {
        if (*left != *right) {
            return *left < *right ? -1 : 1;
        }
    }
    return 0;
}
