/* The program that the tests of the process attachment track: it does what it is told through
 * shared memory, one command after the other. Its side is test_target_main.c, without sanitizers,
 * so that its memory is that of an ordinary program. */
#ifndef TOWLINE_HOSTS_PROCESS_TEST_TARGET_H
#define TOWLINE_HOSTS_PROCESS_TEST_TARGET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define TARGET_PAGES_MAX   16384u /* of the arena that the threads write in */
#define TARGET_THREADS_MAX 8u

enum target_command {
    TARGET_NONE,
    TARGET_MAP,       /* kind, length -> result: address; 0 = not to be had */
    TARGET_STORE,     /* address: 8 bytes of value */
    TARGET_LOAD,      /* address -> result */
    TARGET_UNMAP,     /* address, length */
    TARGET_REMAP,     /* address, length -> result: where it was moved to */
    TARGET_PROTECT,   /* address, length, value: PROT_* */
    TARGET_GIVE_BACK, /* address, length: MADV_DONTNEED */
    TARGET_BREAK,     /* length: grows the heap -> result: start of the new part */
    TARGET_DEEP,      /* length: goes down its stack -> result: address stored to */
    TARGET_FORK,      /* address, value: a child stores, and ends -> result: its status */
    TARGET_EXEC,      /* itself, anew */
    TARGET_EXIT,
    TARGET_READ,    /* address, length: read(2) of its own file */
    TARGET_THREADS, /* address, length (pages), value: seed, threads; runs until stop */
    TARGET_ROUND,   /* the same, for `stores` stores a thread, then done */
    TARGET_SLEEP,   /* value: milliseconds; result: how long it took, microseconds; errno 0 */
};

enum target_kind {
    TARGET_ANONYMOUS,
    TARGET_BIG,          /* transparent big pages asked for, aligned to 2 MiB */
    TARGET_SHARED,       /* anonymous, shared */
    TARGET_FILE_SHARED,  /* a temporary file, shared */
    TARGET_FILE_PRIVATE, /* the same, private */
    TARGET_READ_ONLY,    /* the same, private and not writable */
    TARGET_RESERVED,     /* anonymous, PROT_NONE */
    TARGET_HUGETLB,
};

struct target_control {
    atomic_uint asked; /* grows by one with each command */
    atomic_uint done;
    atomic_uint stop; /* ends TARGET_THREADS */
    uint32_t command, kind, threads;
    uint64_t address, length, value, stores;
    uint64_t result;
    /* What the threads wrote since the last clear, a bit a line of the arena; set before the
     * store. */
    _Atomic uint64_t written[TARGET_PAGES_MAX];
};

struct target {
    struct target_control *control;
    int memory_fd;
    pid_t pid;
};

/* ---- The tests' side (test_target.c); every failure ends the test program by abort() ----------
 */

/* Makes the shared memory, and starts the program unless `argv` is asked for, to start it by. */
void target_start(struct target *t);
void target_prepare(struct target *t, char *argv[3]);
void target_end(struct target *t); /* kills, reaps */

/* Tells it and waits until it has done so. */
uint64_t target_do(struct target *t, enum target_command command, uint64_t address, uint64_t length,
                   uint64_t value);
void target_begin(struct target *t, enum target_command command, uint64_t address, uint64_t length,
                  uint64_t value); /* does not wait */
void target_wait(struct target *t);
uint64_t target_map(struct target *t, enum target_kind kind, uint64_t length);
void target_store(struct target *t, uint64_t address, uint64_t value);
void target_read_memory(const struct target *t, uint64_t address, void *out, size_t length);

#endif
