/* Runs a library on a board that QEMU emulates: inputs lie at INPUTS, what comes of each goes to the file
 * `answers.bin` of the host by semihosting: returned value, ticks, ticks of an empty call, bytes of stack, whether the
 * ticks wrapped, output.
 */
#include <stdint.h>

#define TICKS_MASK 0xFFFFFFu
#define PAINT 0xA5A5A5A5u

extern int8_t edgeprune_input[INPUT_BYTES];
extern int8_t edgeprune_output[OUTPUT_BYTES];
extern int8_t edgeprune_arena[ARENA_BYTES];
extern uint32_t edgeprune_ram_free[];
extern uint32_t edgeprune_ram_end[];

int LIBRARY_RUN(const int8_t *input, int8_t *output, void *arena);
void edgeprune_reset(void);
int edgeprune_nothing(const int8_t *input, int8_t *output, void *arena);

static volatile uint32_t *const systick = (volatile uint32_t *)0xE000E010u;

static uint32_t host(uint32_t operation, const void *block)
{
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = block;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static void leave(uint32_t code)
{
    const uint32_t block[2] = {0x20026, code};
    host(0x20, block);
    for (;;) {
    }
}

static void faulted(void)
{
    leave(3);
}

__attribute__((naked)) int edgeprune_nothing(const int8_t *input, int8_t *output, void *arena)
{
    __asm__ volatile("bx lr");
}

static __attribute__((noinline)) uint32_t called(int (*function)(const int8_t *, int8_t *, void *), uint32_t *ticks)
{
    /* through a volatile pointer: both calls must be the same instructions */
    int (*volatile chosen)(const int8_t *, int8_t *, void *) = function;
    systick[2] = 0;
    (void)systick[0]; /* clears the flag of a wrap */
    const uint32_t before = systick[2];
    const uint32_t returned = (uint32_t)chosen(edgeprune_input, edgeprune_output, edgeprune_arena);
    const uint32_t after = systick[2];
    *ticks = (before - after) & TICKS_MASK;
    return returned;
}

static __attribute__((noinline)) void answer(uint32_t handle, const uint8_t *input)
{
    uint32_t head[5];
    for (uint32_t i = 0; i < INPUT_BYTES; i++) {
        edgeprune_input[i] = (int8_t)input[i];
    }
    for (uint32_t i = 0; i < ARENA_BYTES; i++) {
        edgeprune_arena[i] = (int8_t)(PAINT & 0xFF);
    }
    called(edgeprune_nothing, &head[2]);
    uint32_t *top;
    __asm__ volatile("mov %0, sp" : "=r"(top));
    for (volatile uint32_t *at = edgeprune_ram_free; at < top; at++) {
        *at = PAINT;
    }
    head[0] = called(LIBRARY_RUN, &head[1]);
    head[4] = (systick[0] >> 16) & 1;
    volatile uint32_t *at = edgeprune_ram_free;
    while (at < top && *at == PAINT) {
        at++;
    }
    head[3] = (uint32_t)top - (uint32_t)at;
    const uint32_t first[3] = {handle, (uint32_t)head, sizeof head};
    const uint32_t second[3] = {handle, (uint32_t)edgeprune_output, OUTPUT_BYTES};
    if (host(5, first) || host(5, second)) {
        leave(4);
    }
}

void edgeprune_reset(void)
{
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* floating point and Helium */
    __asm__ volatile("dsb\n isb");
    systick[1] = TICKS_MASK;
    systick[0] = 5; /* the core's clock, no interrupt */
    static const char name[] = "answers.bin";
    const uint32_t open[3] = {(uint32_t)name, 5, sizeof name - 1};
    const uint32_t handle = host(1, open);
    for (uint32_t i = 0; i < INPUT_COUNT; i++) {
        answer(handle, (const uint8_t *)INPUTS + i * INPUT_BYTES);
    }
    leave(0);
}

__attribute__((section(".vectors"), used)) static const void *const vectors[8] = {
    edgeprune_ram_end, (const void *)edgeprune_reset, (const void *)faulted, (const void *)faulted,
    (const void *)faulted, (const void *)faulted, (const void *)faulted, (const void *)faulted,
};
