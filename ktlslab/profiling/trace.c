/* A plugin of QEMU: between two marks it writes down every block of instructions that the emulated CPU executes.
 *
 * A mark is a no-op that no compiler makes: nopl 0x014c544b(%rax) (0f 1f 80, "KTL", a digit) begins a trace where the
 * digit is 1 and ends it where it is 2. Options, by QEMU's -plugin FILE,folder=FOLDER. It writes there
 *
 *   blocks    each block once, in the order of its number: where it begins (8 bytes), how many instructions it has, how
 *             many bytes, where among these its last instruction begins (2 bytes each), 2 bytes of nothing, the bytes
 *   trace.N   the N-th trace, from 0: numbers of blocks in the order of their execution (4 bytes each). SWITCH, followed
 *             by the 8 bytes of its address, says which task the kernel has switched to. It comes first as well.
 *
 * All numbers have the byte order of the machine. QEMU's plugin interface is declared by hand, for no distribution packages
 * its header (include/qemu/qemu-plugin.h). It is that of version 1 (QEMU 4.2 to 8.2) up to the present one.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define SWITCH UINT32_MAX
#define MAX_BYTES 4096 /* of a block: more than its instructions can have */

typedef uint64_t plugin_id;
struct plugin_info {
    const char *target_name;
    struct {
        int min, cur;
    } version;
};
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { NO_REGISTERS = 0, READS_AND_WRITES = 3 }; /* QEMU 7.2 does not report a load to who asks for reads alone */

extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned, void *), int, void *);
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*)(unsigned, void *), int, void *);
extern void qemu_plugin_register_vcpu_mem_cb(
    struct qemu_plugin_insn *, void (*)(unsigned, uint32_t, uint64_t, void *), int, int, void *);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
extern size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);

EXPORT int qemu_plugin_version = 1;

struct block {
    uint32_t number; /* from 1 on, in `blocks`; 0: not executed in a trace so far */
    struct {
        uint64_t start;
        uint16_t instructions, size, last, nothing;
    } head;
    unsigned char bytes[];
};

static char folder[4000];
static FILE *blocks, *trace;
static uint32_t known;
static unsigned traces;
static uint64_t task;
static int interface; /* the plugin interface's version that this QEMU has */
static void *instruction_bytes;

/* QEMU reads `qemu_plugin_version` after it has loaded this file: by then it can be the one that this QEMU takes. From
 * version 2 on there is this function, and later versions take a plugin of version 2. */
__attribute__((constructor)) static void choose_version(void) {
    if (dlsym(RTLD_DEFAULT, "qemu_plugin_num_vcpus"))
        qemu_plugin_version = 2;
}

static void fail(const char *path) {
    fprintf(stderr, "ktlslab: writing %s failed\n", path);
    exit(1);
}

static FILE *create(const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (!file)
        fail(path);
    return file;
}

static void put(const void *data, size_t size, FILE *file) {
    if (fwrite(data, size, 1, file) != 1)
        fail(folder);
}

static void executed(unsigned cpu, void *data) {
    struct block *block = data;
    if (!trace)
        return;
    if (!block->number) {
        block->number = ++known;
        put(&block->head, sizeof block->head, blocks);
        put(block->bytes, block->head.size, blocks);
    }
    uint32_t number = block->number - 1;
    put(&number, sizeof number, trace);
}

static void say_task(void) {
    uint32_t mark = SWITCH;
    put(&mark, sizeof mark, trace);
    put(&task, sizeof task, trace);
}

/* The kernel has loaded the stack pointer of the next task, from an address inside that task's structure. */
static void switched(unsigned cpu, uint32_t how, uint64_t address, void *data) {
    task = address;
    if (trace)
        say_task();
}

static void marked(unsigned cpu, void *data) {
    bool begins = (uintptr_t)data == 1;
    if (trace && (fflush(blocks) || fclose(trace)))
        fail(folder);
    trace = NULL;
    if (begins) {
        char name[32];
        snprintf(name, sizeof name, "trace.%u", traces++);
        trace = create(name);
        say_task();
    }
}

/* Copy an instruction's bytes: from version 3 of the interface on, the function copies them itself. */
static void copy(struct qemu_plugin_insn *instruction, unsigned char *to, size_t size) {
    if (interface < 3)
        memcpy(to, ((const void *(*)(const struct qemu_plugin_insn *))instruction_bytes)(instruction), size);
    else
        ((size_t (*)(const struct qemu_plugin_insn *, void *, size_t))instruction_bytes)(instruction, to, size);
}

/* mov %rsp, N(%rdi); mov N(%rsi), %rsp: in the kernel's __switch_to_asm and nowhere else. */
static bool switches(const unsigned char *bytes) {
    return !memcmp(bytes, "\x48\x89\xa7", 3) && !memcmp(bytes + 7, "\x48\x8b\xa6", 3) && !memcmp(bytes + 3, bytes + 10, 4);
}

static void translated(plugin_id id, struct qemu_plugin_tb *tb) {
    unsigned char bytes[MAX_BYTES + 16] = {0};
    size_t count = qemu_plugin_tb_n_insns(tb), size = 0, last = 0, before = 0;
    for (size_t i = 0; i < count; i++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(tb, i);
        size_t length = qemu_plugin_insn_size(instruction);
        if (size + length > MAX_BYTES)
            fail("a block that long");
        before = last;
        last = size;
        copy(instruction, bytes + last, length);
        size += length;
        if (length == 7 && !memcmp(bytes + last, "\x0f\x1f\x80KTL", 6))
            qemu_plugin_register_vcpu_insn_exec_cb(instruction, marked, NO_REGISTERS, (void *)(uintptr_t)bytes[last + 6]);
        if (length == 7 && last - before == 7 && switches(bytes + before))
            qemu_plugin_register_vcpu_mem_cb(instruction, switched, NO_REGISTERS, READS_AND_WRITES, NULL);
    }
    if (!count)
        return;
    struct block *block = malloc(sizeof *block + size); /* for good: the code that QEMU makes of it refers to it */
    if (!block)
        fail("memory");
    uint64_t start = qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(tb, 0));
    *block = (struct block){.head = {.start = start, .instructions = count, .size = size, .last = last}};
    memcpy(block->bytes, bytes, size);
    qemu_plugin_register_vcpu_tb_exec_cb(tb, executed, NO_REGISTERS, block);
}

EXPORT int qemu_plugin_install(plugin_id id, const struct plugin_info *info, int argc, char **argv) {
    for (int i = 0; i < argc; i++)
        if (!strncmp(argv[i], "folder=", 7))
            snprintf(folder, sizeof folder, "%s", argv[i] + 7);
    interface = info->version.cur;
    instruction_bytes = dlsym(RTLD_DEFAULT, "qemu_plugin_insn_data");
    blocks = create("blocks");
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    return 0;
}
