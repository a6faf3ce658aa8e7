/* From reset to main on an Arm Cortex-M, without a library: vectors, floating point, .data and .bss. */
#include <stdint.h>

extern uint32_t _data_source[], _data_start[], _data_end[], _bss_start[], _bss_end[], _stack_top[];

int main(void);
void reset_handler(void);
void stop(void);

/* Any other exception is an error here, since nothing is switched on that interrupts. */
void stop(void)
{
    for (;;) {
    }
}

/* The initial stack pointer and the sixteen exceptions of the core. */
__attribute__((section(".vectors"), used)) static const struct {
    uint32_t *stack;
    void (*handlers[15])(void);
} vectors = {_stack_top, {reset_handler, stop, stop, stop, stop, stop, stop, stop, stop, stop, stop, stop, stop, stop, stop}};

/* First of all the coprocessors that compute in floating point or on vectors: code of any function may use them. */
__attribute__((noreturn)) void reset_handler(void)
{
#if __ARM_ARCH >= 7
    volatile uint32_t *const coprocessor_access = (volatile uint32_t *)0xE000ED88u;
    *coprocessor_access |= 0xFu << 20;
    __asm volatile("dsb\n\tisb" ::: "memory");
#endif
    const uint32_t *from = _data_source;
    for (uint32_t *to = _data_start; to < _data_end; to++) {
        *to = *from++;
    }
    for (volatile uint32_t *to = _bss_start; to < (volatile uint32_t *)_bss_end; to++) {
        *to = 0;
    }
    main();
    stop();
    for (;;) {
    }
}
