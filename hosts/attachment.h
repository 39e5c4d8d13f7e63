/* What a tracking service needs of an attachment to a program: one table for all of them.
 *
 * Each attachment has a device, finds the program's written lines in its own way, and tells the
 * device. A session is a watch (which addresses) and a tracker (an epoch over their device ranges):
 *
 *   begin:    watch, pass until done, tw_tracker_start, settle
 *   collect:  pass until done, tw_tracker_collect, settle, tw_tracker_read
 *
 * All functions are called on the thread that owns the attachment; none waits longer than a
 * slice, unless it says so. */
#ifndef TOWLINE_HOSTS_ATTACHMENT_H
#define TOWLINE_HOSTS_ATTACHMENT_H

#include "base/error.h"
#include "base/line.h"
#include "fpga-model/device.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What was found of a written page. */
struct tw_told {
    uint64_t device_page; /* number */
    uint64_t lines; /* that differ from what they were; 0: the page was written, and is equal */
    uint32_t bytes; /* of these lines, that differ */
    bool whole;     /* lines and bytes are not known */
    /* Where each store is seen: lines that were stored to and hold what they held, and those of
     * which nobody can say. */
    uint64_t same, unsure;
};
typedef void (*tw_told_fn)(void *arg, const struct tw_told *told);

/* Whether the program stands still for us. */
enum tw_hold {
    TW_HOLD_NONE,  /* it does not, and will not */
    TW_HOLD_LATER, /* it runs, and will before its end */
    TW_HOLD_START, /* before its first instruction, until it is watched */
    TW_HOLD_END,   /* before its end, until what it wrote was read */
};

enum tw_attachment_kind {
    TW_ATTACHMENT_ANY = 0, /* where one is asked for: whichever knows most */
    TW_ATTACHMENT_PROCESS,
    TW_ATTACHMENT_INSTRUMENTED,
};

/* A line that several threads stored to. */
#define TW_SHARED_LINE_THREADS 8u
struct tw_shared_line {
    uint64_t address;      /* of the line, in the program */
    uint32_t thread_count; /* below; more may have written */
    bool disjoint;         /* no byte was written by two of them: false sharing */
    struct {
        uint32_t tid;
        uint64_t pc;    /* of its latest store to the line */
        uint64_t bytes; /* a bit for each byte of the line that it stored to */
    } threads[TW_SHARED_LINE_THREADS];
};

struct tw_attachment_ops {
    /* Begins to watch `ranges` of the program's addresses, page-aligned and disjoint. Where a
     * program can be watched without its help, `count` 0 is everything that it may write to;
     * else INVALID_ARGUMENT. */
    enum tw_code (*watch)(void *ctx, const struct tw_range *ranges, size_t count, void **watch,
                          struct tw_error *err);
    void (*unwatch)(void *ctx, void *watch);
    /* The device ranges of a watch, for its tracker; valid until unwatch. */
    const struct tw_range *(*watch_ranges)(const void *watch, size_t *count);

    /* Brings what was written before pass_begin into the trackers. */
    enum tw_code (*pass_begin)(void *ctx, struct tw_error *err);
    enum tw_code (*step)(void *ctx, uint64_t slice_ns, bool *done, struct tw_error *err);
    /* After a tracker was started or collected, before anyone reads data: stores that may still be
     * on their way are put into the epoch that has just begun. Returns how many lines. */
    size_t (*settle)(void *ctx);
    /* When a collector that does not want to slow the program should pass again; 0 = any time. On
     * the clock that the attachment was made with. */
    uint64_t (*due_ns)(const void *ctx);

    /* A program that is held waits, for a few seconds at most, until a pass that began meanwhile is
     * complete and `go` is called. Both NULL: there is no such thing. */
    enum tw_hold (*hold)(const void *ctx);
    void (*go)(void *ctx);
    /* From now on `told` hears of each written page, in the pass that finds it: for meters, which
     * want to know of bytes and of what was written in vain. `told` NULL ends it. NULL where
     * contents are not compared. RESOURCE_EXHAUSTED: no memory for copies. */
    enum tw_code (*observe)(void *ctx, tw_told_fn told, void *arg, struct tw_error *err);
    /* After a pass: lines that several threads stored to since the last call. Returns how many
     * there are, of which at most `max` are put out. NULL where that is not known. */
    size_t (*sharing)(void *ctx, struct tw_shared_line *out, size_t max);

    /* The program's loads are told as well, or no more; others may want them still, so whoever asks
     * counts. Waits for the program, at most a second. NULL where `sees_loads` says all. */
    enum tw_code (*loads)(void *ctx, bool wanted, struct tw_error *err);

    /* From a device page (tw_dirty_page.page) to the program's address and back; TW_NEVER: none. */
    uint64_t (*address)(const void *ctx, uint64_t device_page);
    uint64_t (*device_address)(const void *ctx, uint64_t address);

    bool (*alive)(void *ctx);
    void (*close)(void *ctx); /* the program runs on */
};

struct tw_attachment {
    const struct tw_attachment_ops *ops;
    void *ctx;
    struct tw_device *device;
    bool same_value_is_dirty; /* R7: a line rewritten with what it held is reported */
    bool whole_pages;         /* a page may be reported as a whole where lines are not known */
    bool sees_loads;          /* trackers of accessed lines are told what was loaded */
    bool compares_on_demand;  /* contents are compared, at a price, while somebody observes */
    bool outlives;            /* a pass still finds what was stored when the program has ended */
    enum tw_attachment_kind kind;
    const char *const *blind_spots; /* one sentence each; ends with NULL */
};

#endif
