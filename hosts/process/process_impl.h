/* Inside the process attachment: what attach, watches and passes share. */
#ifndef TOWLINE_HOSTS_PROCESS_PROCESS_IMPL_H
#define TOWLINE_HOSTS_PROCESS_PROCESS_IMPL_H

#include "fpga-model/page_set.h"
#include "hosts/process/copies.h"
#include "hosts/process/crew.h"
#include "hosts/process/inject.h"
#include "hosts/process/kernel.h"
#include "hosts/process/maps.h"
#include "hosts/process/process.h"
#include "hosts/process/windows.h"

#define TW_BIG_PAGE (UINT64_C(2) << 20) /* bytes */

/* ---- Watches (watch.c) ----------------------------------------------------------------------- */

struct tw_process_watch {
    struct tw_process *process;
    bool armed;
    bool arming;             /* was there when the present pass began */
    struct tw_range *ranges; /* virtual, sorted */
    size_t range_count;
    struct tw_range *device_ranges;
    size_t device_range_count;
};

/* A stretch of addresses that is watched by somebody; `armed` when by an armed watch. Sorted,
 * disjoint. */
struct tw_piece {
    uint64_t start, end;
    bool armed;
};

/* Index of the first piece that ends beyond `address`. */
size_t tw_piece_find(const struct tw_process *p, uint64_t address);
/* Makes the pieces anew from the watches. */
enum tw_code tw_pieces_update(struct tw_process *p, struct tw_error *err);

/* ---- Passes (pass.c, spans.c) ---------------------------------------------------------------- */

/* What is scanned together: a part of one mapping. Rounded out to big pages, so that none is cut;
 * what is not watched of it is ignored when it is found. */
struct tw_span {
    uint64_t start, end;
    bool anonymous, shared;
};

/* Pages found written (or, of shared memory that is new, present), not yet read. */
struct tw_found {
    struct tw_page_run run;
    bool anonymous, shared;
};

#define TW_SCAN_RUNS   512u /* of one scan */
#define TW_BATCH       256u /* pages read together, */
#define TW_BATCH_PIECE 16u  /* of which so many by one call */
#define TW_SCAN_BYTES  (UINT64_C(64) << 20)

/* Pages on their way from the program's memory to the device. */
struct tw_batch {
    uint64_t address[TW_BATCH];
    uint64_t device_page[TW_BATCH];
    bool anonymous[TW_BATCH];
    bool deliver[TW_BATCH];  /* false: content at the start */
    bool failed[TW_BATCH];   /* could not be read */
    bool compared[TW_BATCH]; /* with a copy; then there is a report */
    struct tw_page_report report[TW_BATCH];
    unsigned count;
    uint8_t *bytes; /* TW_BATCH pages */
};

struct tw_pass {
    bool active;
    uint64_t began_ns, own_ns;
    uint64_t written;       /* pages */
    size_t span;            /* being scanned */
    uint64_t address;       /* in it; 0 = at its start */
    struct tw_found *found; /* outlive a pass that is broken off */
    size_t found_count, found_capacity;
    size_t found_at;      /* being read */
    uint64_t found_pages; /* in all of them */
};

/* ---- The attachment (process.c) -------------------------------------------------------------- */

struct tw_process {
    char where[32];                  /* "pid 4711" */
    struct tw_process_config config; /* defaults filled in */
    pid_t pid;
    int pidfd, userfaultfd, pagemap, maps_fd, mem;
    struct tw_machine machine;
    struct tw_inject *stay; /* NULL: nobody traces it */

    struct tw_device *device;
    tw_told_fn told; /* NULL: nobody wants to hear */
    void *told_arg;
    struct tw_windows windows;
    struct tw_copies copies;
    struct tw_page_set big; /* by device address / TW_BIG_PAGE: mapped as a big page when seen */

    struct tw_process_watch *watches[TW_PROCESS_WATCHES_MAX];
    unsigned watch_count;
    struct tw_piece *pieces;
    size_t piece_count;

    struct tw_maps maps;
    struct tw_span *spans;
    size_t span_count, span_capacity;
    struct tw_batch batch;
    struct tw_crew *crew; /* NULL until a batch is big enough */
    struct tw_pass pass;
    struct tw_process_stats stats;
    uint64_t due_ns;
    uint64_t program_cpu_ns, program_seen_ns; /* at the end of the last pass */
};

/* Looks whether the program is still the one that we attached to. ABORTED when it is not; the state
 * then says why. */
enum tw_code tw_process_check(struct tw_process *p, struct tw_error *err);

/* Reads the maps, registers what is new, makes the spans. */
enum tw_code tw_spans_update(struct tw_process *p, struct tw_error *err);
enum tw_code tw_found_add(struct tw_process *p, const struct tw_page_run *runs, size_t count,
                          bool anonymous, bool shared, struct tw_error *err);

/* Reads what is in the batch and tells the device; empties the batch. */
void tw_batch_deliver(struct tw_process *p);

/* The pause that the budget asks for after a pass (budget.c). */
uint64_t tw_budget_interval_ns(const struct tw_process_config *config, uint64_t fault_cost_ns,
                               uint64_t own_cost_ns, uint64_t program_cpu_ns, uint64_t elapsed_ns);

#endif
