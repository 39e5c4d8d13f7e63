/* Inside the attachment. */
#ifndef TOWLINE_HOSTS_INSTRUMENTED_PRIVATE_H
#define TOWLINE_HOSTS_INSTRUMENTED_PRIVATE_H

#include "hosts/instrumented/compare.h"
#include "hosts/instrumented/instrumented.h"

#define TW_WINDOW_PAGES (TW_INSTRUMENTED_WINDOW / TW_PAGE_SIZE)

/* At records of threads, and at /proc, in one pass or settling. */
#define TW_INST_LOOKS_MAX  8192u
#define TW_INST_PROC_MAX   256u
/* Lines that threads share, of one pass. */
#define TW_INST_SHARED_MAX 256u

/* Lines that a thread has announced and perhaps not stored. */
struct tw_inst_flight {
    uint64_t first, last;
};
#define TW_INST_FLIGHTS_MAX (2 * TW_INST_THREADS_MAX)

/* A pass goes through its phases in pieces of a window. */
enum tw_inst_phase {
    TW_INST_DISCOVER, /* windows that the program has begun to use, where everything is watched */
    TW_INST_CARRY,    /* what was in flight when an epoch was closed */
    TW_INST_SCAN,     /* the marks */
    TW_INST_SHARE,    /* who wrote, where that is told */
    TW_INST_DONE,
};

/* 64 MiB of the program, and their part of the file. */
struct tw_inst_window {
    uint64_t address; /* of the program */
    uint64_t device_address;
    struct tw_link_map map;
    uint8_t *lines;                         /* TW_INST_SHARING and TW_INST_OWNED */
    uint64_t written[TW_WINDOW_PAGES / 64]; /* pages since the last sharing_take */
    /* Pages whose marks were taken, or that were carried, since the carrying before: a store whose
     * mark was taken is in one of them. */
    uint64_t recent[TW_WINDOW_PAGES / 64];
    bool has_recent;
};

struct tw_instrumented {
    char name[32]; /* "program 4711" */
    pid_t pid;
    bool same_pids; /* the program sees its pid as we do, so its tids too */
    int connection, pidfd, file;
    bool told;           /* that it is tracked */
    bool loads_wanted;   /* it records its loads, too */
    bool holding;        /* it waits at its start for its first epoch */
    unsigned everything; /* watches of all that it stores to */
    const char **spots;  /* what is not seen, of this program; ends with NULL */
    size_t own_spots;    /* of these, the first, which are ours to free */
    enum tw_inst_mode mode;
    uint8_t *head; /* the file up to the summary */
    struct tw_inst_header *header;
    struct tw_inst_thread *threads;
    struct tw_device *device;
    struct tw_cache *cache;
    unsigned cores;
    uint64_t windows_max;
    struct tw_inst_window **windows;    /* in the order of device addresses */
    struct tw_inst_window **by_address; /* sorted */
    size_t window_count;
    enum tw_inst_phase phase;
    uint64_t discover_at;           /* in the summary: the next window that is looked at */
    unsigned discover_left;         /* looks */
    size_t next_window;             /* of the phase */
    bool shares;                    /* this pass has a phase for it */
    struct tw_inst_flight *flights; /* of the last settlings, not carried yet; FLIGHTS_MAX */
    size_t flight_count;
    bool flights_all;                /* any line may be in flight */
    bool settled;                    /* since the last carrying */
    struct tw_shared_line *shared;   /* found, not handed out yet; SHARED_MAX */
    size_t shared_count;             /* may exceed it */
    unsigned shared_looks;           /* left */
    uint64_t epoch;                  /* our own copy of the header's */
    struct tw_inst_compare *compare; /* NULL: nobody wants to know of contents */
    uint64_t copy_bytes_max;
    uint64_t carried, loads, stores;
    uint64_t barriers, slow_barriers;
    struct tw_instrumented_mutations mutations;
};

/* window.c */
struct tw_inst_window *tw_inst_window_at(const struct tw_instrumented *p, uint64_t address);
enum tw_code tw_inst_window_add(struct tw_instrumented *p, uint64_t address,
                                struct tw_inst_window **out, struct tw_error *err);
void tw_inst_windows_close(struct tw_instrumented *p);

/* The window of a device address; NULL where none was given out. */
static inline struct tw_inst_window *tw_inst_window_of_device(const struct tw_instrumented *p,
                                                              uint64_t device_address)
{
    const uint64_t index = device_address / TW_INSTRUMENTED_WINDOW;
    return index < p->window_count ? p->windows[index] : NULL;
}

/* spots.c */
enum tw_code tw_inst_spots_make(struct tw_instrumented *p, struct tw_error *err);
void tw_inst_spots_free(struct tw_instrumented *p);

enum tw_code tw_inst_discover_next(struct tw_instrumented *p, bool *done, struct tw_error *err);
void tw_inst_discover_begin(struct tw_instrumented *p);

/* pass.c: goes on until it is done or `deadline_ns` has come, at least by one window. */
void tw_inst_pass_begin(struct tw_instrumented *p, enum tw_inst_phase first);
enum tw_code tw_inst_pass_go_on(struct tw_instrumented *p, uint64_t deadline_ns,
                                struct tw_error *err);

/* carry.c: without line states. */
size_t tw_inst_carry_note(struct tw_instrumented *p);
void tw_inst_carry_begin(struct tw_instrumented *p);
void tw_inst_carry_window(struct tw_instrumented *p, struct tw_inst_window *w);
void tw_inst_carry_end(struct tw_instrumented *p);

/* sharing.c */
void tw_inst_sharing_window(struct tw_instrumented *p, struct tw_inst_window *w);
size_t tw_inst_sharing_hand_out(struct tw_instrumented *p, struct tw_shared_line *out, size_t max);

/* collect.c: what thread `index` has announced and perhaps not stored; 0: nothing. `looks` at /proc
 * are left: without, everything announced counts. */
uint64_t tw_inst_in_flight_within(const struct tw_instrumented *p, uint32_t index, unsigned *looks);
void tw_inst_scan_window(struct tw_instrumented *p, struct tw_inst_window *w);
void tw_inst_take_events(struct tw_instrumented *p);

/* collect.c: the host's side of the device's snoops, and of the cache's messages. */
uint64_t tw_inst_snoop(void *program, uint64_t page, uint64_t lines, enum tw_snoop kind);
void tw_inst_message(void *program, enum tw_link_message message, uint64_t address);
/* What thread `index` has announced and perhaps not stored; 0: nothing. */
uint64_t tw_inst_in_flight(const struct tw_instrumented *p, uint32_t index);
/* Every thread of the program that runs has its stores visible and its loads behind it. */
void tw_inst_barrier(struct tw_instrumented *p);

#endif
