/* Stands in for QEMU around the plug-in: keeps what it registers, and lets a test translate, execute and call. */
#include COUNT_C

struct instruction {
    uint32_t word;
};
struct block {
    size_t count;
    struct instruction instructions[64];
};

static translated_call kept_translated;
static system_call kept_called;
static accessed_call kept_accessed;
static void *kept_data[64];
static executed_call kept_executed;
static int blocks;

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, translated_call call) { kept_translated = call; }
void qemu_plugin_register_vcpu_syscall_cb(uint64_t id, system_call call) { kept_called = call; }
void qemu_plugin_register_vcpu_mem_cb(struct instruction *i, accessed_call call, int flags, int kinds, void *data)
{
    kept_accessed = call;
}
void qemu_plugin_register_vcpu_tb_exec_cb(struct block *block, executed_call call, int flags, void *data)
{
    kept_executed = call;
    kept_data[blocks++] = data;
}
size_t qemu_plugin_tb_n_insns(const struct block *block) { return block->count; }
struct instruction *qemu_plugin_tb_get_insn(const struct block *block, size_t index)
{
    return (struct instruction *)&block->instructions[index];
}
const void *qemu_plugin_insn_data(const struct instruction *instruction) { return &instruction->word; }
unsigned qemu_plugin_mem_size_shift(uint32_t access) { return access & 15; }
bool qemu_plugin_mem_is_store(uint32_t access) { return access >> 4 & 1; }

EXPORT int test_class(uint32_t word) { return class_of(word); }
EXPORT int test_install(const char *target, int api, char *out, char *l1, char *l2)
{
    const struct information information = {target, {0, api}, false};
    char *arguments[] = {out, l1, l2};
    return qemu_plugin_install(1, &information, 3, arguments);
}
EXPORT int test_translate(const uint32_t *words, size_t count)
{
    struct block block = {.count = count};
    for (size_t i = 0; i < count; i++) {
        block.instructions[i].word = words[i];
    }
    kept_translated(1, &block);
    return blocks - 1;
}
EXPORT void test_execute(int block) { kept_executed(0, kept_data[block]); }
EXPORT void test_access(uint64_t address, unsigned shift, int store)
{
    kept_accessed(0, shift | (unsigned)store << 4, address, NULL);
}
EXPORT void test_call(int64_t number, uint64_t which, uint64_t mark)
{
    kept_called(1, 0, number, which, mark, 0, 0, 0, 0, 0, 0);
}
