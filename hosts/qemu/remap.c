#include "hosts/qemu/remap.h"

/* One bit an opcode. */
struct opcodes {
    uint64_t bits[4];
};

static bool has(const struct opcodes *set, uint8_t opcode)
{
    return set->bits[opcode / 64] >> (opcode % 64) & 1;
}

#define OP(x, word) ((x) / 64 == (word) ? UINT64_C(1) << ((x) % 64) : 0)

/* 6c-6f ins, outs; 9a call far; ca, cb return far; cc-ce int; cf iret; e4-e7, ec-ef in, out; ea
 * jump far; f1 int1; f4 hlt */
#define ONE(w)                                                                                     \
    (OP(0x6c, w) | OP(0x6d, w) | OP(0x6e, w) | OP(0x6f, w) | OP(0x9a, w) | OP(0xca, w) |           \
     OP(0xcb, w) | OP(0xcc, w) | OP(0xcd, w) | OP(0xce, w) | OP(0xcf, w) | OP(0xe4, w) |           \
     OP(0xe5, w) | OP(0xe6, w) | OP(0xe7, w) | OP(0xea, w) | OP(0xec, w) | OP(0xed, w) |           \
     OP(0xee, w) | OP(0xef, w) | OP(0xf1, w) | OP(0xf4, w))

/* After 0f. 00 ltr and others; 01 invlpg, lmsw, vmrun and others; 05, 07, 34, 35 system calls and
 * their returns; 06 clts; 08, 09 invd, wbinvd; 20-23 moves to and from control and debug registers;
 * 30 wrmsr; aa rsm */
#define TWO(w)                                                                                     \
    (OP(0x00, w) | OP(0x01, w) | OP(0x05, w) | OP(0x06, w) | OP(0x07, w) | OP(0x08, w) |           \
     OP(0x09, w) | OP(0x20, w) | OP(0x21, w) | OP(0x22, w) | OP(0x23, w) | OP(0x30, w) |           \
     OP(0x34, w) | OP(0x35, w) | OP(0xaa, w))

/* 26 2e 36 3e 64 65 segments; 66 67 sizes; f0 lock; f2 f3 repeat */
#define PREFIX(w)                                                                                  \
    (OP(0x26, w) | OP(0x2e, w) | OP(0x36, w) | OP(0x3e, w) | OP(0x64, w) | OP(0x65, w) |           \
     OP(0x66, w) | OP(0x67, w) | OP(0xf0, w) | OP(0xf2, w) | OP(0xf3, w))

static const struct opcodes one_byte = {{ONE(0), ONE(1), ONE(2), ONE(3)}};
static const struct opcodes two_bytes = {{TWO(0), TWO(1), TWO(2), TWO(3)}};
static const struct opcodes prefixes = {{PREFIX(0), PREFIX(1), PREFIX(2), PREFIX(3)}};

/* 40-4f are REX prefixes in 64-bit mode and whole instructions otherwise: nothing follows then. */
static bool is_prefix(uint8_t byte)
{
    return has(&prefixes, byte) || (byte & 0xf0) == 0x40;
}

bool tw_insn_may_remap(const uint8_t *bytes, size_t size)
{
    size_t i = 0;
    if (size == 0 || size > TW_INSN_MAX)
        return true;
    while (i + 1 < size && is_prefix(bytes[i]))
        i++;
    const size_t left = size - i;
    if (bytes[i] == 0xff) { /* /3 call far, /5 jump far */
        const unsigned group = left > 1 ? bytes[i + 1] >> 3 & 7u : 3;
        return group == 3 || group == 5;
    }
    if (bytes[i] != 0x0f)
        return has(&one_byte, bytes[i]);
    if (left < 2)
        return true;
    if (bytes[i + 1] == 0x38) /* 80-82 invept, invvpid, invpcid */
        return left < 3 || (bytes[i + 2] >= 0x80 && bytes[i + 2] <= 0x82);
    return has(&two_bytes, bytes[i + 1]);
}
