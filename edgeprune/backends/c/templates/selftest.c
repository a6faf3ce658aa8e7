/* Runs @name@ on the vectors of @name@_golden.h: every output value must be the reference kernels' own.
 *
 * On a computer it is a program. With EP_NO_MAIN it is one function, @name@_selftest, that needs no library.
 */
#include "@name@_golden.h"

#define GUARD_BYTES 64
#define GUARD 0xA5u

static uint8_t memory[GUARD_BYTES + @NAME@_ARENA_BYTES + GUARD_BYTES]
    __attribute__((aligned(@NAME@_ARENA_ALIGNMENT)));

/* How many output values differ over all vectors; negative where memory beside the arena was written, or a run failed.
 * Each run starts on other rubbish in the arena, since none may depend on what lies there.
 */
long @name@_selftest(void);
long @name@_selftest(void)
{
    long wrong = 0;
    for (int vector = 0; vector < @NAME@_GOLDEN_COUNT; vector++) {
        for (size_t i = 0; i < sizeof memory; i++) {
            const int guard = i < GUARD_BYTES || i >= GUARD_BYTES + @NAME@_ARENA_BYTES;
            memory[i] = guard ? GUARD : (uint8_t)(31 * vector + 127);
        }
        const long found = @name@_golden_wrong(vector, memory + GUARD_BYTES);
        if (found < 0) {
            return found;
        }
        wrong += found;
        for (size_t i = 0; i < GUARD_BYTES; i++) {
            if (memory[i] != GUARD || memory[GUARD_BYTES + @NAME@_ARENA_BYTES + i] != GUARD) {
                return -2;
            }
        }
    }
    return wrong;
}

#ifndef EP_NO_MAIN
#include <stdio.h>

int main(void)
{
    const long wrong = @name@_selftest();
    if (wrong == 0) {
        printf("PASS @name@: %d vectors, every value as the reference gives it\n", @NAME@_GOLDEN_COUNT);
        return 0;
    }
    if (wrong < 0) {
        printf("FAIL @name@: %s\n", wrong == -1 ? "a run was refused" : "memory beside the arena was written");
    } else {
        printf("FAIL @name@: %ld output values differ from the reference\n", wrong);
    }
    return 1;
}
#endif
