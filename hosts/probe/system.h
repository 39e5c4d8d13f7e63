/* What the probes ask a machine, as a table of functions: tests answer in its place.
 *
 * Functions return 0 or an errno value unless they say otherwise. */
#ifndef TOWLINE_HOSTS_PROBE_SYSTEM_H
#define TOWLINE_HOSTS_PROBE_SYSTEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TW_PROBE_RUN_MS   10000u /* that a program may take */
#define TW_PROBE_NO_LIMIT UINT64_MAX

enum tw_probe_call {
    TW_PROBE_UFFD_DEVICE, /* /dev/userfaultfd and USERFAULTFD_IOC_NEW */
    TW_PROBE_UFFD_CALL,   /* userfaultfd(2) that also sees faults taken inside the kernel */
    TW_PROBE_UFFD_USER,   /* userfaultfd(2) for faults of user code only: needs no right */
    TW_PROBE_VM_READ,     /* process_vm_readv(2) of this process itself: needs no right */
    TW_PROBE_PIDFD_GETFD, /* pidfd_getfd(2) of this process itself: needs no right */
    TW_PROBE_PTRACE,      /* attach to a child */
    TW_PROBE_MEMFD,       /* memfd_create(2), given a size, mapped shared */
    TW_PROBE_PAGEMAP_SCAN,
    TW_PROBE_CALLS,
};

/* Feature bits of UFFDIO_API and modes of UFFDIO_REGISTER, as the kernel numbers them. Kernel
 * headers of 2023 do not have all of them. */
#define TW_UFFD_MISSING_SHMEM (UINT64_C(1) << 5)
#define TW_UFFD_MINOR_SHMEM   (UINT64_C(1) << 10)
#define TW_UFFD_WP_SHMEM      (UINT64_C(1) << 12)
#define TW_UFFD_POISON        (UINT64_C(1) << 14)
#define TW_UFFD_WP_ASYNC      (UINT64_C(1) << 15)
#define TW_UFFD_MOVE          (UINT64_C(1) << 16)
#define TW_UFFD_MODE_MISSING  (UINT64_C(1) << 0)
#define TW_UFFD_MODE_WP       (UINT64_C(1) << 1)
#define TW_UFFD_MODE_MINOR    (UINT64_C(1) << 2)

struct tw_probe_uffd {
    uint64_t offered;  /* features that the kernel lists */
    uint64_t accepted; /* those above that it granted when they were asked for */
    uint64_t modes;    /* in which it took a shared mapping of a memfd */
};

enum tw_probe_fs { TW_PROBE_FS_OTHER, TW_PROBE_FS_TMPFS, TW_PROBE_FS_HUGE };

struct tw_probe_space {
    enum tw_probe_fs kind;
    bool writable;        /* for this process */
    uint64_t total_bytes; /* TW_PROBE_NO_LIMIT: a tmpfs without a size */
    uint64_t free_bytes;  /* for this process */
};

struct tw_probe_system {
    void *ctx;
    const char *root; /* stands before every path of /proc, /sys and /dev that is read; "" */
    int (*memlock)(void *ctx, uint64_t *soft_bytes, uint64_t *hard_bytes);
    /* Of `path` or, where it does not exist yet, of the nearest folder above it. */
    int (*space)(void *ctx, const char *path, struct tw_probe_space *out);
    /* Does it, in a child of its own where a seccomp filter might kill for it. 0: allowed; > 0: the
     * errno; < 0: minus the signal that killed. */
    int (*attempt)(void *ctx, enum tw_probe_call call);
    int (*uffd)(void *ctx, struct tw_probe_uffd *out);
    /* Runs a program with no input, both outputs into `output` (cut, with a final zero) and its
     * exit status, 128 + signal, to *status. ETIMEDOUT: it was killed at the deadline. */
    int (*run)(void *ctx, char *const argv[], unsigned timeout_ms, char *output, size_t size,
               int *status);
    uint64_t (*wall_ms)(void *ctx); /* since 1970 */
};

/* The machine that this runs on. A copy may set `ctx` to an _Atomic bool: once it is true, a
 * program that runs is killed. */
extern const struct tw_probe_system tw_probe_machine;

/* The start of a file below the root, with a final zero; false: cannot be read. */
bool tw_probe_read(const struct tw_probe_system *system, const char *path, char *text, size_t size);
/* The number after `key` in such a file ("" = at its start). */
bool tw_probe_number(const struct tw_probe_system *system, const char *path, const char *key,
                     int base, uint64_t *value);
/* Whether this process may open a device below the root for reading and writing: 0 or an errno. */
int tw_probe_openable(const struct tw_probe_system *system, const char *path);

#endif
