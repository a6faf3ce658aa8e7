/* Runs the self-test of @name@ on @target@ and keeps what it found where a debugger finds it.
 *
 * With SEMIHOSTING=1 it also says so through the debugger or emulator; without one attached that would be a fault.
 */
#include <stdint.h>

#include "@name@_golden.h"

long @name@_selftest(void);

volatile long selftest_wrong = -100;         /* 0: every output value was right; -100: not finished */
volatile uint32_t selftest_cycles = 0xFFFFFFFFu; /* of the last run; 0 where the core does not count */

@NAME@_STATIC_ARENA(arena);

/* Cycles of one run by the core's own counter (DWT), which Armv6-M has none of. */
static uint32_t cycles_of_a_run(void)
{
#if __ARM_ARCH < 7
    return 0;
#else
    volatile uint32_t *const trace = (volatile uint32_t *)0xE000EDFCu;
    volatile uint32_t *const control = (volatile uint32_t *)0xE0001000u;
    volatile uint32_t *const count = (volatile uint32_t *)0xE0001004u;
    *trace |= 1u << 24;
    *count = 0;
    *control |= 1u;
    const uint32_t before = *count;
    (void)@name@_golden_wrong(0, arena);
    return *count - before;
#endif
}

#ifdef SEMIHOSTING
static void host(uint32_t call, const void *argument)
{
    register uint32_t r0 __asm("r0") = call;
    register const void *r1 __asm("r1") = argument;
    __asm volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
}

static void say(void)
{
    const uint32_t ended[2] = {0x20026u, selftest_wrong == 0 ? 0u : 1u};
    host(0x04u, selftest_wrong == 0 ? "PASS @name@\n" : "FAIL @name@\n");
    host(0x20u, ended);
}
#endif

int main(void);
int main(void)
{
    const long wrong = @name@_selftest();
    selftest_cycles = cycles_of_a_run();
    selftest_wrong = wrong;
#ifdef SEMIHOSTING
    say();
#endif
    return 0;
}
