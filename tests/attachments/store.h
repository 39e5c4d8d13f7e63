/* Stores of every kind, as orders that each program of the contract suite can carry out: the
 * tracked program, the instrumented one, the guest, and the cache model's driver. Freestanding, and
 * of the same layout for 32 and 64 bits. */
#ifndef TOWLINE_TESTS_ATTACHMENTS_STORE_H
#define TOWLINE_TESTS_ATTACHMENTS_STORE_H

#include <stdint.h>

#define CONTRACT_PAGES   32u
#define CONTRACT_LINES   (CONTRACT_PAGES * 64u)
#define CONTRACT_BYTES   (CONTRACT_PAGES * 4096u)
#define CONTRACT_THREADS 3u
#define CONTRACT_FILL    0xa5u /* every byte of the region at the start */

enum contract_kind {
    CONTRACT_STORE,       /* an ordinary store of 1, 2, 4 or 8 bytes, aligned or not */
    CONTRACT_SAME,        /* the same, of the value that is there */
    CONTRACT_ATOMIC,      /* adds to 4 aligned bytes in one step */
    CONTRACT_SET,         /* memset */
    CONTRACT_COPY,        /* memcpy, at most 256 bytes */
    CONTRACT_NONTEMPORAL, /* 4 aligned bytes past the caches */
    CONTRACT_ASSEMBLY,    /* 4 aligned bytes by an instruction that no compiler wrote */
    CONTRACT_KERNEL,      /* read(2), at most 256 bytes */
    CONTRACT_OUTSIDE,     /* by another program, or a device */
    CONTRACT_LOAD,        /* no store at all */
    CONTRACT_KINDS,
};

struct contract_store {
    uint32_t kind;   /* enum contract_kind */
    uint32_t thread; /* below CONTRACT_THREADS: who does it, where there are threads */
    uint32_t offset; /* in the region */
    uint32_t size;   /* bytes */
    uint64_t value;
};

struct __attribute__((packed, may_alias)) contract_word2 {
    uint16_t value;
};
struct __attribute__((packed, may_alias)) contract_word4 {
    uint32_t value;
};
struct __attribute__((packed, may_alias)) contract_word8 {
    uint64_t value;
};

static inline uint64_t contract_load(const volatile uint8_t *at, uint32_t size)
{
    switch (size) {
    case 1:
        return *at;
    case 2:
        return ((const volatile struct contract_word2 *)at)->value;
    case 4:
        return ((const volatile struct contract_word4 *)at)->value;
    default:
        return ((const volatile struct contract_word8 *)at)->value;
    }
}

static inline void contract_put(volatile uint8_t *at, uint32_t size, uint64_t value)
{
    switch (size) {
    case 1:
        *at = (uint8_t)value;
        break;
    case 2:
        ((volatile struct contract_word2 *)at)->value = (uint16_t)value;
        break;
    case 4:
        ((volatile struct contract_word4 *)at)->value = (uint32_t)value;
        break;
    default:
        ((volatile struct contract_word8 *)at)->value = value;
        break;
    }
}

/* The kinds that are one instruction or a few; false for the others. */
static inline int contract_perform(uint8_t *region, const struct contract_store *s)
{
    uint8_t *at = region + s->offset;
    switch (s->kind) {
    case CONTRACT_STORE:
        contract_put(at, s->size, s->value);
        return 1;
    case CONTRACT_SAME:
        contract_put(at, s->size, contract_load(at, s->size));
        return 1;
    case CONTRACT_ATOMIC:
        __atomic_fetch_add((uint32_t *)(void *)at, (uint32_t)s->value | 1, __ATOMIC_SEQ_CST);
        return 1;
    case CONTRACT_NONTEMPORAL:
        __asm__ volatile("movnti %1, %0" : "=m"(*(uint32_t *)(void *)at) : "r"((uint32_t)s->value));
        __asm__ volatile("sfence" ::: "memory");
        return 1;
    case CONTRACT_ASSEMBLY:
        __asm__ volatile("movl %1, %0"
                         : "=m"(*(uint32_t *)(void *)at)
                         : "r"((uint32_t)s->value)
                         : "memory");
        return 1;
    case CONTRACT_LOAD:
        contract_load(at, s->size);
        return 1;
    default:
        return 0;
    }
}

/* One store of a storm: anywhere, but to lines of even number only. */
static inline void contract_storm(uint8_t *region, uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    const uint32_t line = (*state >> 8) % CONTRACT_LINES & ~1u;
    contract_put(region + line * 64u + (*state >> 28) * 4u, 4, *state);
}

#endif
