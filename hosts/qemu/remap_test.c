#include "hosts/qemu/remap.h"

#include <criterion/criterion.h>

struct sample {
    const char *what;
    uint8_t bytes[TW_INSN_MAX];
    size_t size;
};

static const struct sample remaps[] = {
    {"mov %rax,%cr3", {0x0f, 0x22, 0xd8}, 3},
    {"mov %r8,%cr3", {0x41, 0x0f, 0x22, 0xd8}, 4},
    {"invlpg (%rax)", {0x0f, 0x01, 0x38}, 3},
    {"invpcid (%rax),%rcx", {0x66, 0x0f, 0x38, 0x82, 0x08}, 5},
    {"iretq", {0x48, 0xcf}, 2},
    {"iretd", {0xcf}, 1},
    {"sysretq", {0x48, 0x0f, 0x07}, 3},
    {"syscall", {0x0f, 0x05}, 2},
    {"wrmsr", {0x0f, 0x30}, 2},
    {"rsm", {0x0f, 0xaa}, 2},
    {"out %al,(%dx)", {0xee}, 1},
    {"rep outsb", {0xf3, 0x6e}, 2},
    {"out %al,$0x92", {0xe6, 0x92}, 2},
    {"ljmp *(%eax)", {0xff, 0x28}, 2},
    {"lcall *(%eax)", {0xff, 0x18}, 2},
    {"ljmpw", {0x66, 0xea, 0, 0, 0, 0}, 6},
    {"lretq", {0x48, 0xcb}, 2},
    {"lmsw %ax", {0x0f, 0x01, 0xf0}, 3},
    {"ltr %ax", {0x0f, 0x00, 0xd8}, 3},
    {"int3", {0xcc}, 1},
    {"hlt", {0xf4}, 1},
    {"vmrun", {0x0f, 0x01, 0xd8}, 3},
    {"nothing", {0}, 0},
    {"cut short", {0x0f}, 1},
};

static const struct sample others[] = {
    {"mov %rax,(%rbx)", {0x48, 0x89, 0x03}, 3},
    {"push %rax", {0x50}, 1},
    {"inc %eax, 32 bits", {0x40}, 1},
    {"call rel32", {0xe8, 1, 2, 3, 4}, 5},
    {"ret", {0xc3}, 1},
    {"call *%rax", {0xff, 0xd0}, 2},
    {"jmp *%rax", {0xff, 0xe0}, 2},
    {"push (%rax)", {0xff, 0x30}, 2},
    {"incl (%rax)", {0xff, 0x00}, 2},
    {"rep stosq", {0xf3, 0x48, 0xab}, 3},
    {"lock cmpxchg %ecx,(%rdx)", {0xf0, 0x0f, 0xb1, 0x0a}, 4},
    {"movaps %xmm0,(%rax)", {0x0f, 0x29, 0x00}, 3},
    {"pshufb", {0x66, 0x0f, 0x38, 0x00, 0xc1}, 5},
    {"movb $0xcf,(%rax): an opcode's byte as data", {0xc6, 0x00, 0xcf}, 3},
};

Test(remap, instructions_that_change_a_mapping_are_known)
{
    for (size_t i = 0; i < sizeof remaps / sizeof *remaps; i++)
        cr_expect(tw_insn_may_remap(remaps[i].bytes, remaps[i].size), "%s", remaps[i].what);
}

Test(remap, ordinary_ones_do_not_count)
{
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        cr_expect_not(tw_insn_may_remap(others[i].bytes, others[i].size), "%s", others[i].what);
}

Test(remap, any_bytes_have_an_answer)
{
    uint8_t bytes[TW_INSN_MAX];
    for (unsigned first = 0; first < 256; first++)
        for (unsigned second = 0; second < 256; second++)
            for (size_t size = 0; size <= TW_INSN_MAX; size++) {
                for (unsigned i = 0; i < TW_INSN_MAX; i++)
                    bytes[i] = (uint8_t)(i % 2 ? second : first);
                tw_insn_may_remap(bytes, size); /* the sanitizers look on */
            }
}
