/* Inside the region of a program: its lines (region_lines.c) and the table (region.c). */
#ifndef TOWLINE_HOSTS_INSTRUMENTED_REGION_PRIVATE_H
#define TOWLINE_HOSTS_INSTRUMENTED_REGION_PRIVATE_H

#include "hosts/instrumented/private.h"
#include "hosts/instrumented/region.h"

/* What was told of a thread's wait. */
struct tw_inst_told {
    uint64_t wants;     /* the thread's count of waits then */
    uint64_t line, end; /* of the region: not told yet */
    uint64_t since_ns;
};

struct tw_instrumented_region {
    struct tw_instrumented *program;
    const struct tw_clock *clock;
    struct tw_host host;
    int fd;
    uint64_t address, bytes, pages;
    struct tw_link_map map;
    uint8_t *lines; /* a byte a line: enum tw_inst_wait */

    /* The operation under way. */
    enum tw_host_operation op;
    bool busy, held;
    uint64_t op_deadline_ns;
    const struct tw_host_state *to_load;

    struct tw_host_fault_view view;
    struct tw_inst_told told[TW_INST_THREADS_MAX];
    uint64_t wants_seen; /* the header's count when nothing was left to tell */
    bool told_all;

    uint64_t carried[TW_INST_THREADS_MAX]; /* announcements */
    unsigned carried_count;
    struct tw_instrumented_region_stats stats;
    struct tw_instrumented_region_mutations mutations;
};

/* Sets bits of all lines, or takes them away and wakes who sleeps on those. */
void tw_inst_close_all(struct tw_instrumented_region *r, enum tw_inst_wait how);
void tw_inst_open_all(struct tw_instrumented_region *r, enum tw_inst_wait how);
/* The same for some lines of a page and TW_INST_ABSENT. */
void tw_inst_close_lines(struct tw_instrumented_region *r, uint64_t page, uint64_t lines);
void tw_inst_open_lines(struct tw_instrumented_region *r, uint64_t page, uint64_t lines);

/* Lines that threads wait for and that were not told before. */
size_t tw_inst_take_misses(struct tw_instrumented_region *r, struct tw_host_fault *out, size_t max);
/* Waits are told of again. */
void tw_inst_forget_told(struct tw_instrumented_region *r);

/* Brings what the program has stored to the region's device. */
void tw_inst_region_sync(struct tw_instrumented_region *r);
/* A store to the region may be under way. */
bool tw_inst_region_in_flight(const struct tw_instrumented_region *r);

#endif
