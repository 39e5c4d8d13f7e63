/* The host interface: what a service may ask of the machine whose memory it moves.
 *
 * Each attachment that can move its guest (hosts/qemu) fills one table; those that only track have
 * hosts/attachment.h. Slow operations are begun and then polled, so the data thread never blocks in
 * one. All functions are called on the thread that owns the attachment. */
#ifndef TOWLINE_HOSTS_HOST_H
#define TOWLINE_HOSTS_HOST_H

#include "base/error.h"
#include "base/line.h"
#include "fpga-model/device.h"
#include "hosts/pace.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tw_host_operation {
    TW_HOST_STOP,     /* stops every vCPU; all its stores are in memory and on the link after it */
    TW_HOST_CONTINUE, /* lets the vCPUs run */
    TW_HOST_SAVE_STATE,  /* CPU and device state of the stopped machine into a buffer */
    TW_HOST_AWAIT_STATE, /* readies a machine that was started as incoming for the next: optional,
                            and not repeated; what it spares is spared while no guest waits */
    TW_HOST_LOAD_STATE,  /* the reverse, into such a machine */
};

/* A device state as it travels; owned by who holds it, freed with free(data). */
struct tw_host_state {
    uint8_t *data;
    size_t size;
};
#define TW_HOST_STATE_MAX (UINT64_C(64) << 20) /* bytes; a greater state is refused */

struct tw_host_ops {
    /* Delivers everything the link holds to the device. Cost grows with what was written. */
    void (*sync)(void *host);

    /* Begins an operation; at most one at a time. LOAD_STATE reads `state` until it is done. */
    enum tw_code (*begin)(void *host, enum tw_host_operation op, const struct tw_host_state *state,
                          uint64_t deadline_ns, struct tw_error *err);
    /* True when the operation has ended, well or badly (*code). SAVE_STATE fills *state. */
    bool (*poll)(void *host, struct tw_host_state *state, enum tw_code *code, struct tw_error *err);

    /* False when the machine's process has ended. */
    bool (*alive)(void *host);

    /* The next part of memory at or after `address` that may hold anything but zeros; a length of
     * zero means there is none. */
    struct tw_range (*next_data)(void *host, uint64_t address);

    /* Makes sure that [start, start+length) can be written without running out of space. */
    enum tw_code (*reserve)(void *host, struct tw_range range, struct tw_error *err);
};

/* A touch of guest memory that waits until its page is ready. */
struct tw_host_fault {
    uint64_t address;  /* in memory; where the host cannot tell, the start of the page */
    uint64_t since_ns; /* when it was found, by the host's clock; 0 = just now */
};

/* What a host may look at, also from other threads, to let touches of complete pages go by itself.
 * The service's thread stores a page's word behind the page's contents (release). */
struct tw_host_fault_view {
    uint64_t *to_come; /* for each page the bitmap of its lines that have not come; only read */
    uint64_t *watched; /* bitmap of pages; who opens one clears its bit (atomically) ... */
    uint64_t *touched; /* ... and counts it here */
    uint64_t pages;
};

/* Running a machine whose memory is not there yet. An incoming machine is put under guard before it
 * is touched by anything; from then on the first touch of each page, by a vCPU or by the machine's
 * own process, waits until that page is declared ready. None of these allocates or blocks. */
struct tw_host_fault_ops {
    /* Begins to guard, or goes on with it: true when that has ended, well or badly (*code). */
    bool (*guard)(void *host, enum tw_code *code, struct tw_error *err);
    /* The same for a machine that an earlier process has put under guard, and that may run: takes
     * the guard over. Touches that wait are told of again. */
    bool (*rejoin)(void *host, enum tw_code *code, struct tw_error *err);
    /* May be NULL: the host need not tell of touches of pages that are complete in the view. It is
     * copied; with NULL the last one is not looked at any more when this returns. */
    void (*view)(void *host, const struct tw_host_fault_view *view);
    /* Touches that wait and were not told of before; at most `max`, 0 = none now. */
    size_t (*take)(void *host, struct tw_host_fault *out, size_t max);
    /* The pages' contents are final: touches of the first need not wait any more, and of the others
     * where that can be had for little. NULL with ready_lines. */
    enum tw_code (*ready)(void *host, uint64_t page, uint64_t pages, struct tw_error *err);
    /* NULL where whole pages wait. A host whose memory is behind caches that miss line by line has
     * it instead: a touch waits for its line only, and these lines' contents are final. */
    enum tw_code (*ready_lines)(void *host, uint64_t page, uint64_t lines, struct tw_error *err);
    /* Ends the guard: all that is not ready yet may be touched as it is. Fine without a guard. */
    void (*release)(void *host);
};

/* What slowing its writers has come to, since the machine's start. */
struct tw_host_paced {
    uint64_t waits;   /* stores that waited */
    uint64_t wait_ns; /* of the vCPU that has waited longest */
};

/* Slowing the writers of certain lines of a running machine; who writes elsewhere is not slowed.
 * None of these blocks, and none does anything once the machine is gone. */
struct tw_host_pace_ops {
    /* Which lines of a page; 0 = none. Takes effect with the next rule. */
    void (*lines)(void *host, uint64_t page, uint64_t lines);
    /* How much, from now on; a delay of 0 ends it at once and forgets the lines. The host ends it
     * by itself unless it is told again within TW_HOST_PACE_HOLDS_NS: nobody is slowed for an
     * agent that is gone. */
    void (*rule)(void *host, const struct tw_pace_rule *rule);
    void (*stats)(void *host, struct tw_host_paced *out);
};
#define TW_HOST_PACE_HOLDS_NS UINT64_C(500000000)

struct tw_host {
    const struct tw_host_ops *ops;
    void *ctx;       /* first argument of every function */
    uint8_t *memory; /* the machine's memory, mapped here */
    uint64_t memory_bytes;
    struct tw_device *device; /* its home agent; NULL for a machine that only receives */
    const struct tw_host_fault_ops *faults; /* NULL: it needs all of its memory before it runs */
    const struct tw_host_pace_ops *pace;    /* NULL: it cannot slow anyone */
    bool sees_all_writers; /* false: some writers are found by comparing only (R5, R7) */
};

#endif
