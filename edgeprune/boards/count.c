/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A plug-in of qemu-aarch64: counts executed instructions by class and misses of simulated caches, and writes all
 * counts so far as a line of JSON whenever the guest marks a moment. QEMU loads it into its own process, so this file
 * alone is under QEMU's licence; the rest of edgeprune only starts the program.
 *
 *     qemu-aarch64 -plugin count.so,out=FILE,l1=BYTES:WAYS,l2=BYTES:WAYS ...
 *
 * Compile with -DPLUGIN_API=N, the version that the QEMU offers: the calls differ before 3, from 3 on and from 7 on.
 * Without it, and with a version that is another's, it only writes {"api":N} to FILE and refuses to be loaded.
 *
 * One thread is counted: with several at once, counts may be lost and their caches are one.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#ifndef PLUGIN_API
#define PLUGIN_API 0
#endif
#ifndef DECLARED_API /* what QEMU is told, which it checks against its own range */
#define DECLARED_API PLUGIN_API
#endif

/* What is used of QEMU's interface, declared from its documentation. */
struct block;
struct instruction;
struct information {
    const char *target;
    struct {
        int least, current;
    } api;
    bool whole_system;
};
#if PLUGIN_API >= 7
#define USER_DATA , void *nothing
#define NO_DATA , NULL
#else
#define USER_DATA
#define NO_DATA
#endif
typedef void (*translated_call)(uint64_t id, struct block *USER_DATA);
typedef void (*executed_call)(unsigned int cpu, void *data);
typedef void (*accessed_call)(unsigned int cpu, uint32_t access, uint64_t address, void *data);
typedef void (*system_call)(uint64_t id, unsigned int cpu, int64_t number, uint64_t, uint64_t, uint64_t, uint64_t,
                            uint64_t, uint64_t, uint64_t, uint64_t USER_DATA);

#if PLUGIN_API >= 7
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, translated_call, void *);
void qemu_plugin_register_vcpu_syscall_cb(uint64_t id, system_call, void *);
#else
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, translated_call);
void qemu_plugin_register_vcpu_syscall_cb(uint64_t id, system_call);
#endif
void qemu_plugin_register_vcpu_tb_exec_cb(struct block *, executed_call, int flags, void *data);
void qemu_plugin_register_vcpu_mem_cb(struct instruction *, accessed_call, int flags, int kinds, void *data);
size_t qemu_plugin_tb_n_insns(const struct block *);
struct instruction *qemu_plugin_tb_get_insn(const struct block *, size_t index);
#if PLUGIN_API >= 3
size_t qemu_plugin_insn_data(const struct instruction *, void *to, size_t length);
#else
const void *qemu_plugin_insn_data(const struct instruction *);
#endif
unsigned qemu_plugin_mem_size_shift(uint32_t access);
bool qemu_plugin_mem_is_store(uint32_t access);

/* --- classes of A64 instructions, by the groups of its encoding --- */

enum class {
    INTEGER, BRANCH, LOAD, STORE, VECTOR_LOAD, VECTOR_STORE, VECTOR, MULTIPLY_ADD, DOT, LONG_MULTIPLY, MATRIX, SVE,
    SYSTEM, CLASSES
};
static const char *const class_names[CLASSES] = {
    "integer", "branch", "load", "store", "vector_load", "vector_store", "vector", "multiply_add", "dot",
    "long_multiply", "matrix", "sve", "system"
};

static bool matches(uint32_t word, uint32_t mask, uint32_t value)
{
    return (word & mask) == value;
}

static enum class memory_class(uint32_t word)
{
    const bool vector = word >> 26 & 1;
    const unsigned group = word >> 27 & 7; /* bits 29 to 27 */
    bool load;
    if (!vector && (matches(word, 0x3b200c00, 0x38200000) || matches(word, 0x3fa07c00, 0x08a07c00) ||
                    matches(word, 0xbfa07c00, 0x08207c00))) {
        return LOAD; /* ldadd, swp, cas and their kin, which do both */
    }
    if (group == 3 && matches(word, 0x3b000000, 0x18000000)) {
        load = true; /* literal */
    } else if (group == 1 || group == 5) {
        load = word >> 22 & 1; /* exclusive and ordered, structures, pairs */
    } else if (vector) {
        load = word >> 22 & 1;
    } else {
        load = (word >> 22 & 3) != 0;
    }
    return vector ? (load ? VECTOR_LOAD : VECTOR_STORE) : (load ? LOAD : STORE);
}

static enum class vector_class(uint32_t word)
{
    if (matches(word, 0x9f20fc00, 0x0e009400) || matches(word, 0x9fc0f400, 0x0f80e000)) {
        return DOT; /* sdot, udot: vector, by element */
    }
    if (matches(word, 0x9fe0fc00, 0x0e80a400) || matches(word, 0x9fe0fc00, 0x0e80ac00)) {
        return MATRIX; /* smmla, ummla, usmmla */
    }
    if (matches(word, 0xbf20fc00, 0x0e20cc00) || matches(word, 0xbfa0fc00, 0x0ea0cc00) ||
        matches(word, 0xbf80b400, 0x0f801000) || matches(word, 0xff80b400, 0x5f801000) ||
        matches(word, 0xff000000, 0x1f000000)) {
        return MULTIPLY_ADD; /* fmla, fmls: vector, by element; fmadd and its kin */
    }
    if (matches(word, 0x9f20dc00, 0x0e208000) || matches(word, 0x9f20fc00, 0x0e20c000) ||
        matches(word, 0x9f00b400, 0x0f002000) || matches(word, 0x9f00f400, 0x0f00a000)) {
        return LONG_MULTIPLY; /* smlal, smlsl, smull and unsigned: vector, by element */
    }
    return VECTOR;
}

static enum class class_of(uint32_t word)
{
    const unsigned group = word >> 25 & 15; /* bits 28 to 25 */
    if (group == 2) {
        return SVE;
    }
    if ((group & 14) == 8 || (group & 7) == 5) {
        return INTEGER; /* with immediates, with registers */
    }
    if ((group & 14) == 10) {
        return word >> 24 == 0xd5 ? SYSTEM : BRANCH;
    }
    if ((group & 5) == 4) {
        return memory_class(word);
    }
    return (group & 7) == 7 ? vector_class(word) : SYSTEM;
}

/* --- two levels of caches: sets of lines in the order of their last use, the first one the most recent --- */

#define LINE_BITS 6 /* 64 bytes */
#define MOST_WAYS 16

struct cache {
    uint64_t *lines;
    uint64_t sets;
    unsigned ways;
    uint64_t misses;
};
static struct cache first = {.ways = 2}, second = {.ways = 16};

/* Whether the line was there; it is the most recent one now. Lines are numbered from 1, so that 0 is an empty way. */
static inline bool touch(struct cache *cache, uint64_t line)
{
    uint64_t *set = cache->lines + (line & (cache->sets - 1)) * cache->ways;
    uint64_t moved = set[0];
    if (moved == line) {
        return true;
    }
    for (unsigned way = 1; way < cache->ways; way++) {
        const uint64_t here = set[way];
        set[way] = moved;
        if (here == line) {
            set[0] = line;
            return true;
        }
        moved = here;
    }
    set[0] = line;
    cache->misses++;
    return false;
}

static bool sized(struct cache *cache, const char *text)
{
    unsigned long bytes;
    unsigned ways;
    if (sscanf(text, "%lu:%u", &bytes, &ways) != 2 || ways == 0 || ways > MOST_WAYS) {
        return false;
    }
    cache->ways = ways;
    cache->sets = (bytes >> LINE_BITS) / ways;
    cache->lines = calloc(cache->sets * ways, sizeof *cache->lines);
    return cache->sets && (cache->sets & (cache->sets - 1)) == 0 && cache->lines;
}

/* --- what QEMU calls --- */

#define MARK 0x45504d4b /* `which` of a getpriority that nobody else asks for */
#define GETPRIORITY 141

struct translated {
    uint64_t executed;
    struct translated *before;
    uint16_t counts[CLASSES];
};
static struct translated *translated_blocks;
static bool watching; /* memory, from the first mark on: what the guest loads before is of no interest and takes long */
static uint64_t read_bytes, written_bytes;
static FILE *answers;

static void executed(unsigned int cpu, void *data)
{
    ((struct translated *)data)->executed++;
}

static void accessed(unsigned int cpu, uint32_t access, uint64_t address, void *data)
{
    if (!watching) {
        return;
    }
    const uint64_t bytes = 1u << qemu_plugin_mem_size_shift(access);
    *(qemu_plugin_mem_is_store(access) ? &written_bytes : &read_bytes) += bytes;
    const uint64_t from = (address >> LINE_BITS) + 1, to = ((address + bytes - 1) >> LINE_BITS) + 1;
    for (uint64_t line = from; line <= to; line++) {
        if (!touch(&first, line)) {
            touch(&second, line);
        }
    }
}

static uint32_t word_of(const struct instruction *instruction)
{
    uint32_t word = 0;
#if PLUGIN_API >= 3
    qemu_plugin_insn_data(instruction, &word, sizeof word);
#else
    memcpy(&word, qemu_plugin_insn_data(instruction), sizeof word);
#endif
    return word;
}

/* Called with QEMU's lock of translations held. */
static void translated(uint64_t id, struct block *block USER_DATA)
{
    struct translated *made = calloc(1, sizeof *made);
    const size_t count = qemu_plugin_tb_n_insns(block);
    for (size_t index = 0; index < count; index++) {
        struct instruction *instruction = qemu_plugin_tb_get_insn(block, index);
        made->counts[class_of(word_of(instruction))]++;
        qemu_plugin_register_vcpu_mem_cb(instruction, accessed, 0, 3, NULL);
    }
    made->before = translated_blocks;
    translated_blocks = made;
    qemu_plugin_register_vcpu_tb_exec_cb(block, executed, 0, made);
}

static void write_counts(int mark)
{
    uint64_t counts[CLASSES] = {0}, total = 0;
    for (const struct translated *block = translated_blocks; block; block = block->before) {
        for (int class = 0; class < CLASSES; class++) {
            counts[class] += block->executed * block->counts[class];
        }
    }
    for (int class = 0; class < CLASSES; class++) {
        total += counts[class];
    }
    fprintf(answers, "{\"mark\":%d,\"instructions\":%llu,\"l1_misses\":%llu,\"l2_misses\":%llu,"
            "\"read_bytes\":%llu,\"written_bytes\":%llu", mark, (unsigned long long)total,
            (unsigned long long)first.misses, (unsigned long long)second.misses, (unsigned long long)read_bytes,
            (unsigned long long)written_bytes);
    for (int class = 0; class < CLASSES; class++) {
        fprintf(answers, ",\"%s\":%llu", class_names[class], (unsigned long long)counts[class]);
    }
    fprintf(answers, "}\n");
    fflush(answers);
}

static void called(uint64_t id, unsigned int cpu, int64_t number, uint64_t which, uint64_t mark, uint64_t a3,
                   uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8 USER_DATA)
{
    if (number == GETPRIORITY && (uint32_t)which == MARK) {
        watching = true;
        write_counts((int)mark);
    }
}

static bool speaks(int api)
{
    return PLUGIN_API >= 7 ? api >= 7 : PLUGIN_API >= 3 ? api >= 3 && api < 7 : PLUGIN_API > 0 && api < 3;
}

EXPORT int qemu_plugin_version = DECLARED_API;

EXPORT int qemu_plugin_install(uint64_t id, const struct information *information, int count, char **arguments)
{
    bool ready = sized(&first, "32768:2") && sized(&second, "1048576:16");
    for (int index = 0; index < count; index++) {
        const char *argument = arguments[index];
        if (strncmp(argument, "out=", 4) == 0) {
            answers = fopen(argument + 4, "w");
        } else if (strncmp(argument, "l1=", 3) == 0) {
            ready = ready && sized(&first, argument + 3);
        } else if (strncmp(argument, "l2=", 3) == 0) {
            ready = ready && sized(&second, argument + 3);
        } else {
            ready = false;
        }
    }
    if (!answers) {
        return 1;
    }
    fprintf(answers, "{\"api\":%d}\n", information->api.current);
    fflush(answers);
    if (!ready || !speaks(information->api.current) || strcmp(information->target, "aarch64") != 0) {
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated NO_DATA);
    qemu_plugin_register_vcpu_syscall_cb(id, called NO_DATA);
    return 0;
}
