/* The guests that are moved: what a case boots and how it is known to be ready. */
#ifndef TOWLINE_BENCH_MIGRATION_GUEST_H
#define TOWLINE_BENCH_MIGRATION_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bench_guest {
    const char *name;         /* the case */
    const char *what;         /* a line for the reader */
    bool linux_guest;         /* reports on its serial port only; the others have a control block */
    bool writes;              /* false: there are no operations to count */
    const char *command_line; /* of its kernel */
    unsigned ready_ms;        /* it must have said READY by then */
    unsigned warm_up_ms;      /* from READY to the migration */
};

/* QEMU 7.2's own pre-copy under TCG loses writes when memory is a multiple of 256 KiB, so every
 * contender gets 8 KiB more than 256 MiB. */
#define BENCH_MEMORY_BYTES ((UINT64_C(256) << 20) + 8192)

extern const struct bench_guest bench_guests[];
extern const size_t bench_guest_count;

const struct bench_guest *bench_guest_find(const char *name); /* NULL = no such case */

/* Where the guests' files are; the folder of the build, and what scripts/guest-linux made. */
struct bench_files {
    const char *sparse_elf, *vmlinuz, *redis_cpio;
};
const char *bench_guest_kernel(const struct bench_guest *guest, const struct bench_files *files);
const char *bench_guest_initrd(const struct bench_guest *guest, const struct bench_files *files);

#endif
