/* Inside the attachment. */
#ifndef TOWLINE_HOSTS_INSTRUMENTED_PRIVATE_H
#define TOWLINE_HOSTS_INSTRUMENTED_PRIVATE_H

#include "hosts/instrumented/instrumented.h"

#define TW_WINDOW_PAGES (TW_INSTRUMENTED_WINDOW / TW_PAGE_SIZE)

/* 64 MiB of the program, and their part of the file. */
struct tw_inst_window {
    uint64_t address; /* of the program */
    uint64_t device_address;
    struct tw_link_map map;
    uint8_t *lines;                         /* TW_INST_SHARING and TW_INST_OWNED */
    uint64_t written[TW_WINDOW_PAGES / 64]; /* pages since the last sharing_take */
};

struct tw_instrumented {
    char name[32]; /* "program 4711" */
    pid_t pid;
    bool same_pids; /* the program sees its pid as we do, so its tids too */
    int connection, pidfd, file;
    bool told;           /* that it is tracked */
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
    uint64_t epoch; /* our own copy of the header's */
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

/* collect.c: the host's side of the device's snoops, and of the cache's messages. */
uint64_t tw_inst_snoop(void *program, uint64_t page, uint64_t lines, enum tw_snoop kind);
void tw_inst_message(void *program, enum tw_link_message message, uint64_t address);
/* What thread `index` has announced and perhaps not stored; 0: nothing. */
uint64_t tw_inst_in_flight(const struct tw_instrumented *p, uint32_t index);
/* Every thread of the program that runs has its stores visible and its loads behind it. */
void tw_inst_barrier(struct tw_instrumented *p);

#endif
