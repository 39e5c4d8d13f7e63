/* The emulated coherent device: home agent of the lines of its regions.
 *
 * It hears every message of the coherence link, keeps a snoop filter of 2 bits a line (I, S, A) and
 * feeds dirty-line trackers. Deterministic: no I/O, threads, or wall clock; the host's caches come
 * in as a table of functions. Not thread-safe: one thread owns a device.
 *
 * Its tables are reserved at once and cost memory where they are touched. At most, for each GiB of
 * device memory: 4 MiB for the snoop filter (none without a snooped host), and for each tracker
 * 4 MiB (two bitmaps a page) and 8 bytes a buffer entry, together 6 MiB when every page has one.
 *
 * Sources: US20200034297 (dirty-line tracking by write-backs), US20200242035 (registration and
 * collection), US20200034175 (sweeps around migration), US20190278713 (accessed bits of lines);
 * message names are CXL.mem's. */
#ifndef TOWLINE_FPGA_MODEL_DEVICE_H
#define TOWLINE_FPGA_MODEL_DEVICE_H

#include "base/error.h"
#include "base/line.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tw_device;
struct tw_tracker;

#define TW_DEVICE_MEMORY_MAX   (UINT64_C(1) << 43) /* bytes: page numbers fit in 32 bits */
#define TW_DEVICE_TRACKERS_MAX 64u                 /* running at the same time */

/* Messages from the host to the device. */
enum tw_link_message {
    TW_MEM_RD_DATA,  /* MemRd with SnpData: load miss; the host gets the line shared */
    TW_MEM_RD_INV,   /* MemRd with SnpInv: store miss; the line is potentially dirty */
    TW_MEM_INV,      /* MemInv: upgrade of a shared line, no data needed */
    TW_MEM_WR,       /* MemWr: write-back; the line is dirty; the host keeps no copy */
    TW_MEM_WR_KEEP,  /* MemWr of a line that the host keeps, shared and clean */
    TW_MEM_CLN_EVCT, /* MemClnEvct: dropped unmodified */
};

/* Snoops from the device to the host. */
enum tw_snoop {
    TW_BI_SNP_DATA, /* BISnpData: downgrade to shared; a modified line is written back */
    TW_BI_SNP_INV,  /* BISnpInv: invalidate; a modified line is written back */
};

/* Snoop filter state of a line as seen by the device. */
enum tw_line_state {
    TW_LINE_I, /* no copy in the host */
    TW_LINE_S, /* shared, clean */
    TW_LINE_A, /* exclusive or modified: the device cannot tell which */
};

/* The far end of the link. */
struct tw_snoop_ops {
    /* Answers for the lines of `page` (page number) named in `lines`; returns the bitmap of those
     * that were modified and are hereby written back. The host holds them shared (BI_SNP_DATA) or
     * not at all (BI_SNP_INV) afterwards. Must not send link messages about these lines itself. */
    uint64_t (*snoop)(void *ctx, uint64_t page, uint64_t lines, enum tw_snoop kind);
    void *ctx;
};

struct tw_device_config {
    uint64_t memory_bytes; /* the device's address space: [0, memory_bytes), page multiple */
    /* Copied. NULL: the host caches nothing (every store a MemWr), so there is no snoop filter and
     * every line is in I. */
    const struct tw_snoop_ops *snoop;
};

/* Test-only switches that break one rule each, for the mutation check. All false in use. */
struct tw_device_mutations {
    bool skip_start_sweep;   /* R1 */
    bool skip_collect_sweep; /* R2 */
    bool clear_after_read;   /* R3 */
    bool drop_on_overflow;   /* R4 */
};

enum tw_code tw_device_open(const struct tw_device_config *config, struct tw_device **device,
                            struct tw_error *err);
void tw_device_close(struct tw_device *device); /* closes its trackers; NULL is fine */

/* One message about one line. `address` is a byte address inside the device's memory; messages
 * outside it are counted and ignored. */
void tw_device_message(struct tw_device *device, enum tw_link_message message, uint64_t address);

/* The same message about several lines of one page: the vector form that the mark link uses. */
void tw_device_message_page(struct tw_device *device, enum tw_link_message message, uint64_t page,
                            uint64_t lines);

/* Write-backs of a page of which the host cannot tell the lines: the page becomes dirty as a whole
 * in every tracker that watches it, as if its buffer had overflowed. */
void tw_device_message_whole(struct tw_device *device, uint64_t page);

enum tw_line_state tw_device_line_state(const struct tw_device *device, uint64_t address);

struct tw_device_counters {
    uint64_t messages[TW_MEM_CLN_EVCT + 1]; /* lines, by message */
    uint64_t snooped_lines;                 /* lines asked for in snoops */
    uint64_t snoop_write_backs;             /* lines that these snoops wrote back */
    uint64_t out_of_range;                  /* lines of messages that were ignored */
};
void tw_device_counters_get(const struct tw_device *device, struct tw_device_counters *out);
void tw_device_mutate(struct tw_device *device, struct tw_device_mutations mutations);

/* ---- Trackers: a tracker is one consumer's named epoch over some ranges. -------------------- *
 *
 * Of lines that were written back; or, if it is asked for, of all that were accessed: loaded or
 * stored to. A host is silent about what it holds, so every line of the ranges is taken from it
 * when such an epoch begins (BISnpInv): its first access after that is a message. A host without
 * caches has to send MemRd for what it loads. */

struct tw_tracker_config {
    const char *name;              /* unique in the device; at most 63 bytes; copied */
    const struct tw_range *ranges; /* page-aligned, inside the device, disjoint; copied */
    size_t range_count;
    uint32_t buffer_pages; /* page entries of the dirty buffer; beyond it a page degrades to
                              "whole page dirty" (R4); 0 = one entry for every page */
    bool accessed;         /* what is told is every line that was loaded or stored to */
};

/* Dirty lines of one page, as collected. */
struct tw_dirty_page {
    uint64_t page;   /* page number */
    uint64_t lines;  /* bitmap; TW_ALL_LINES when whole_page */
    bool whole_page; /* degraded, by overflow or by the host: the lines are not known exactly */
};

/* Registers the ranges and starts: snoops every line of them that may be held A, and does not
 * count the write-backs that this provokes (R1). */
enum tw_code tw_tracker_start(struct tw_device *device, const struct tw_tracker_config *config,
                              struct tw_tracker **tracker, struct tw_error *err);
void tw_tracker_stop(struct tw_tracker *tracker); /* NULL is fine */
struct tw_tracker *tw_tracker_find(struct tw_device *device, const char *name);

/* Snoops every A line of the ranges without ending the epoch: what caches hid is in the stats after
 * it. */
void tw_tracker_sweep(struct tw_tracker *tracker);

/* Ends the epoch and begins the next: snoops every A line of the ranges (R2), then swaps the
 * dirty set for an empty one (R3). Returns the number of dirty pages to read. What an earlier
 * epoch left unread is merged in, so nothing is lost by collecting early. */
size_t tw_tracker_collect(struct tw_tracker *tracker);

/* Reads up to `max` pages of the collected set, in no particular order, from where the last read
 * stopped: a reader with a small buffer calls again. Returns the number written; 0 = all read.
 * The caller reads the lines' data only after this returns (R3). */
size_t tw_tracker_read(struct tw_tracker *tracker, struct tw_dirty_page *out, size_t max);

/* The lines of a page that are in the present, uncollected set. */
uint64_t tw_tracker_lines(const struct tw_tracker *tracker, uint64_t page);

/* Puts lines back (the data could not be sent): they are dirty in the present epoch again. */
void tw_tracker_put_back(struct tw_tracker *tracker, uint64_t page, uint64_t lines);

struct tw_tracker_stats {
    uint64_t epoch;            /* grows by one with each collect */
    uint64_t dirty_pages;      /* pages in the present, uncollected set */
    uint64_t dirty_lines;      /* lines in it; a degraded page counts 64 */
    uint64_t overflowed_pages; /* pages degraded since the start */
};
void tw_tracker_stats_get(const struct tw_tracker *tracker, struct tw_tracker_stats *out);

#endif
