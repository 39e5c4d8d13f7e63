/* The process attachment: an unmodified program whose written lines are found from outside.
 *
 *   kernel                         this attachment                        device
 *   a store to a protected page    PAGEMAP_SCAN: written pages, and       write-backs of
 *   is noted and let through  -->  protected again in the same step  -->  the lines that
 *   (asynchronous write-protect)   then read, and compared with a copy    differ from the copy
 *
 * Addresses. The program's pages are its virtual pages; the device's are found through windows of
 * 64 MiB: tw_process_watch_ranges() gives a watch's ranges as device addresses, for
 * tw_tracker_start(), and tw_process_address() leads back. A virtual page has the same device page
 * for as long as the attachment lives, whatever is mapped there.
 *
 * How to use it (a session of one's own is a watch and a tracker):
 *   tw_process_attach(), tw_process_watch(ranges); tw_process_pass() or pass_begin() and step()
 *   until done: the watch is armed now; tw_tracker_start(device, watch's ranges).
 *   To collect: a pass, then tw_tracker_collect() and tw_tracker_read() (this order is R2, and the
 *   pass protects again before it reads a page: R3). Several watches overlap freely.
 *
 * What it says (R7): lines whose content differs from what the attachment last saw. A line that was
 * rewritten with the same value, or changed and changed back between two passes, is not reported.
 * A page of which there is no copy (its first report, or the store of copies is full) is reported
 * as a whole, and says so (tw_dirty_page.whole_page). What it cannot see is listed in
 * tw_process_blind_spots.
 *
 * The program is stopped once, for one short stop while the descriptor is made inside it; it is not
 * traced afterwards. It never waits for us: when this process dies, the kernel takes all protection
 * away. One thread owns a tw_process; the injection has a thread of its own for as long as it
 * takes, and reading many pages a second one, which sleeps between passes. Only attach, spawn and
 * catch_finish wait, with a deadline. */
#ifndef TOWLINE_HOSTS_PROCESS_PROCESS_H
#define TOWLINE_HOSTS_PROCESS_PROCESS_H

#include "base/clock.h"
#include "base/error.h"
#include "base/line.h"
#include "base/machine.h"
#include "fpga-model/device.h"
#include "hosts/attachment.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct tw_process;
struct tw_process_watch;

#define TW_PROCESS_WATCHES_MAX   64u
#define TW_PROCESS_RANGES_MAX    4096u                /* of one watch */
#define TW_PROCESS_WINDOW        (UINT64_C(64) << 20) /* bytes */
#define TW_PROCESS_ADDRESS_LIMIT (UINT64_C(1) << 47)  /* end of user addresses that we follow */

struct tw_process_config {
    const struct tw_clock *clock; /* NULL = tw_monotonic */
    /* Takes copies of all populated pages when a watch is armed, so that even a page's first report
     * is exact. Costs memory and a read of everything. */
    bool exact;
    uint64_t copy_bytes_max;   /* store of copies; 0 = 1 GiB. Beyond it: whole pages (R4) */
    uint64_t device_bytes_max; /* the device's address space, a multiple of TW_PROCESS_WINDOW;
                                  0 = 256 GiB. Costs memory only where pages are reported */
    /* The budget of passes (tw_process_due_ns), in thousandths: of the program's processor time,
     * for the faults that protection costs it; and of one processor, for us. 0 = 50 and 100. */
    uint32_t fault_permille, own_permille;
    /* A program that was caught at its execve is held until its first pass, and again before its
     * end (tw_process_held); it stays traced meanwhile. */
    bool stay;
    uint64_t stop_timeout_ns; /* until the program has stopped for the injection; 0 = 2 s */
    /* Asked when a caught program has executed, on another thread; true: it is left alone, and
     * catch_finish answers CANCELLED. NULL: it is attached to. */
    bool (*leave)(pid_t pid);
};

/* ---- Beginning and end ---------------------------------------------------------------------- */

/* Attaches to a running program. NOT_FOUND: no such process. PERMISSION_DENIED: no right to trace
 * it, or another tracer has it. UNIMPLEMENTED: the kernel lacks asynchronous write-protect or
 * PAGEMAP_SCAN (each probed), or the program is not of 64 bits. FAILED_PRECONDITION: it lives under
 * a system call filter that we cannot lift and do not share. The program then runs as before. */
enum tw_code tw_process_attach(const struct tw_process_config *config, pid_t pid,
                               struct tw_process **process, struct tw_error *err);

/* Starts argv[0] (looked up in PATH; ends with NULL) as a child of the caller, which inherits the
 * standard files, and attaches before its first instruction. NOT_FOUND when it cannot be executed.
 * The caller reaps the child; tw_process_detach() neither ends nor reaps it. */
enum tw_code tw_process_spawn(const struct tw_process_config *config, char *const argv[],
                              struct tw_process **process, struct tw_error *err);

/* The same for a program that somebody else starts: `pid` waits (for a byte in a pipe, say) before
 * its execve. After catch_begin it may go on; catch_finish waits until it has executed, attaches,
 * and lets it run. catch_finish takes `caught` in any case; tw_process_let_go
 * gives it up without attaching. */
struct tw_process_catch;
enum tw_code tw_process_catch_begin(const struct tw_process_config *config, pid_t pid,
                                    struct tw_process_catch **caught, struct tw_error *err);
enum tw_code tw_process_catch_finish(struct tw_process_catch *caught, uint64_t deadline_ns,
                                     struct tw_process **process, struct tw_error *err);
void tw_process_let_go(struct tw_process_catch *caught); /* NULL is fine */

/* Takes all protection away and forgets the program, which runs on. Closes watches and device, and
 * with it the trackers. NULL is fine. */
void tw_process_detach(struct tw_process *process);

enum tw_process_state {
    TW_PROCESS_ATTACHED,
    TW_PROCESS_EXECED, /* it executed another program: its memory is gone, tracking has ended */
    TW_PROCESS_EXITED, /* it has ended */
};
extern const struct tw_machine_table tw_process_table;

/* As of the last pass, step or poll. After EXECED or EXITED everything can still be read; what was
 * written after the last completed pass is not known and never will be. */
enum tw_process_state tw_process_state_get(const struct tw_process *process);
void tw_process_poll(struct tw_process *process);    /* looks at the state only */
int tw_process_fd(const struct tw_process *process); /* readable when the program has ended */
pid_t tw_process_pid(const struct tw_process *process);

/* ---- Watches --------------------------------------------------------------------------------- */

/* Begins to watch `ranges` (virtual addresses, page-aligned, disjoint); `count` 0 means the whole
 * writable address space, as it changes. Ranges follow what the program maps into them. Every
 * range must hold memory now: NOT_FOUND names an unmapped address, FAILED_PRECONDITION one that
 * cannot be followed (with the reason, see tw_process_next_area).
 * It is armed by the next complete pass. Stores before that pass are not reported (R1). */
enum tw_code tw_process_watch(struct tw_process *process, const struct tw_range *ranges,
                              size_t count, struct tw_process_watch **watch, struct tw_error *err);
void tw_process_unwatch(struct tw_process_watch *watch); /* NULL is fine */
bool tw_process_watch_armed(const struct tw_process_watch *watch);

/* The device ranges of the watch, for its tracker; valid until unwatch. */
const struct tw_range *tw_process_watch_ranges(const struct tw_process_watch *watch, size_t *count);

struct tw_device *tw_process_device(struct tw_process *process); /* no snoops: nothing is cached */

/* The same as a table; owns nothing. */
struct tw_attachment tw_process_attachment(struct tw_process *process);

/* See tw_attachment_ops.hold and go. */
enum tw_hold tw_process_held(const struct tw_process *process);
void tw_process_go(struct tw_process *process);

/* See tw_attachment_ops.observe; NULL ends it. */
void tw_process_observe(struct tw_process *process, tw_told_fn told, void *arg);

/* The virtual address of a device page (tw_dirty_page.page); TW_NEVER when it has none. */
uint64_t tw_process_address(const struct tw_process *process, uint64_t device_page);
/* The device address of a virtual one; TW_NEVER when it has none (nothing was reported there). */
uint64_t tw_process_device_address(const struct tw_process *process, uint64_t address);

/* ---- Passes ---------------------------------------------------------------------------------- */

/* Begins a pass over everything that is watched: reads /proc/PID/maps, follows what is new or gone.
 * FAILED_PRECONDITION while one is under way; ABORTED when the program has ended (see the state).
 */
enum tw_code tw_process_pass_begin(struct tw_process *process, struct tw_error *err);

/* Goes on for about `slice_ns`, in pieces of at most 64 MiB of addresses scanned or 256 pages read.
 * Sets *done when the pass is complete: everything written before pass_begin is in the trackers. An
 * error ends the pass; what it had found is in the trackers, and nothing is lost for the next one.
 * ABORTED: the program ended (see the state). */
enum tw_code tw_process_step(struct tw_process *process, uint64_t slice_ns, bool *done,
                             struct tw_error *err);

/* The same at once: begin, and step until done. DEADLINE_EXCEEDED ends the pass. */
enum tw_code tw_process_pass(struct tw_process *process, uint64_t deadline_ns,
                             struct tw_error *err);

/* When the budget allows the next pass. Nobody is held to it, but a collector that waits for it
 * does not slow the program beyond the budget. How it is reckoned: docs/tracking.md. */
uint64_t tw_process_due_ns(const struct tw_process *process);

/* ---- What there is to know ------------------------------------------------------------------- */

struct tw_process_stats {
    uint64_t stop_ns;          /* how long the program was stopped by the attach */
    uint64_t passes;           /* completed */
    uint64_t pass_ns;          /* elapsed, last completed pass */
    uint64_t pass_own_ns;      /* our processor time, last completed pass */
    uint64_t pass_written;     /* pages found written, last completed pass */
    uint64_t written_pages;    /* since the attach */
    uint64_t changed_lines;    /* reported, of pages with a copy or known to have been zeros */
    uint64_t changed_bytes;    /* of these lines, that differed */
    uint64_t whole_pages;      /* reported as a whole */
    uint64_t same_pages;       /* written, and equal to the copy in every line */
    uint64_t watched_bytes;    /* mapped and watched, as of the last pass */
    uint64_t registered_areas; /* of the program's mappings */
    uint64_t skipped_areas;    /* watched, but not to be followed (tw_process_next_area) */
    uint64_t copy_bytes;       /* in the store of copies */
    uint64_t copies_refused;   /* the store was full */
    uint64_t big_pages;        /* of 2 MiB, transparent, mapped as such when last seen */
    uint64_t big_pages_split;  /* of these, mapped as small ones since: a store splits a protected
                                  big page, and the kernel offers no way around it */
    uint64_t unplaced_pages;   /* written, but the device's address space was full: not reported */
    uint64_t unread_pages;     /* written, but not readable: reported as a whole */
    uint64_t fault_ns;         /* what a first store to a protected page costs here, measured */
    uint64_t interval_ns;      /* the pause between passes that the budget asks for now */
};
void tw_process_stats_get(const struct tw_process *process, struct tw_process_stats *out);

enum tw_area_reason {
    TW_AREA_FOLLOWED,
    TW_AREA_KERNEL,    /* vdso, vvar, vsyscall: the kernel's, not written by the program */
    TW_AREA_DEVICE,    /* a device's memory */
    TW_AREA_READ_ONLY, /* shared or of a file, and not writable */
    TW_AREA_REFUSED,   /* the kernel refuses it (another userfaultfd has it, secret memory, ...) */
    TW_AREA_BEYOND,    /* above TW_PROCESS_ADDRESS_LIMIT */
};
const char *tw_area_reason_text(enum tw_area_reason reason);

struct tw_process_area {
    struct tw_range range; /* virtual */
    bool readable, writable, executable, shared;
    enum tw_area_reason reason;
    char name[96]; /* path or "[heap]", cut; "" = anonymous */
};
/* The first mapping of the program that ends beyond `address`, as of the last pass or watch; false
 * when there is none. */
bool tw_process_next_area(const struct tw_process *process, uint64_t address,
                          struct tw_process_area *out);

/* What this attachment cannot see, one sentence each; ends with NULL. */
extern const char *const tw_process_blind_spots[];

/* OK when this machine can do all of it; else UNIMPLEMENTED or PERMISSION_DENIED with what lacks.
 */
enum tw_code tw_process_probe(struct tw_error *err);

#endif
