/* The instrumented attachment: a program that says before each store which line it stores to.
 *
 *   program, compiled with -fsanitize=thread     shared file       this attachment     device
 *   __tsan_write8(&x); x = 1;                    marks, states --> scans, answers  --> write-backs
 *
 * How the two sides keep in step is in hosts/instrumented/shared.h. The program finds the agent's
 * socket itself (environment variable TOWLINE_INSTRUMENTED), is given the file, and runs on alone
 * when the agent goes.
 *
 * Addresses. As in hosts/process: the device's pages are found through windows of 64 MiB;
 * tw_instrumented_watch_ranges() gives device ranges, tw_instrumented_address() leads back.
 *
 * What it says (R7): every line that was stored to, whether its content changed or not. A store
 * that was announced, but perhaps not made, when an epoch was closed is in both epochs ("carried"):
 * at most one a thread. What it cannot see is in tw_instrumented_blind_spots.
 *
 * One thread owns an attachment. Only accept waits, with a deadline. */
#ifndef TOWLINE_HOSTS_INSTRUMENTED_INSTRUMENTED_H
#define TOWLINE_HOSTS_INSTRUMENTED_INSTRUMENTED_H

#include "base/error.h"
#include "base/line.h"
#include "fpga-model/device.h"
#include "hosts/attachment.h"
#include "hosts/cache/cache.h"
#include "hosts/instrumented/shared.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct tw_instrumented_server;
struct tw_instrumented;
struct tw_instrumented_watch;

#define TW_INSTRUMENTED_WINDOW      (UINT64_C(64) << 20) /* bytes */
#define TW_INSTRUMENTED_WINDOWS_MAX 16384u
#define TW_INSTRUMENTED_RANGES_MAX  4096u /* of one watch */

struct tw_instrumented_config {
    enum tw_inst_mode mode;       /* of the programs that attach */
    bool loads;                   /* record them from the first one on */
    struct tw_cache_config cache; /* TW_INST_OWNED: with a last level or private ones */
    uint64_t device_bytes_max;    /* a multiple of the window; 0 = 256 GiB; costs where used */
    uint64_t copy_bytes_max;      /* of copies, while somebody observes; 0 = 1 GiB */
};

/* Listens on a unix socket at `path`, which only the same user may use, or `everybody`; what stands
 * there is replaced if nobody listens on it any more. */
enum tw_code tw_instrumented_listen(const char *path, bool everybody,
                                    struct tw_instrumented_server **server, struct tw_error *err);
int tw_instrumented_server_fd(const struct tw_instrumented_server *server); /* for poll */
void tw_instrumented_server_close(struct tw_instrumented_server *server);   /* NULL is fine */

/* Takes the next program, and waits until its stores are announced. INVALID_ARGUMENT: what
 * connected is not one. DEADLINE_EXCEEDED: none came, or it fell silent. */
enum tw_code tw_instrumented_accept(struct tw_instrumented_server *server,
                                    const struct tw_instrumented_config *config,
                                    uint64_t deadline_ns, struct tw_instrumented **out,
                                    struct tw_error *err);
/* The program runs on, detached. Closes the device and its trackers. NULL is fine. */
void tw_instrumented_close(struct tw_instrumented *program);

pid_t tw_instrumented_pid(const struct tw_instrumented *program);
bool tw_instrumented_alive(const struct tw_instrumented *program);
struct tw_device *tw_instrumented_device(struct tw_instrumented *program);
/* The same as a table; owns nothing. */
struct tw_attachment tw_instrumented_attachment(struct tw_instrumented *program);

/* Ranges of whole pages that are mapped; none: everything that the program stores to, found anew by
 * tw_instrumented_discover(). NOT_FOUND: nothing is mapped at an address of a range. */
enum tw_code tw_instrumented_watch(struct tw_instrumented *program, const struct tw_range *ranges,
                                   size_t count, struct tw_instrumented_watch **watch,
                                   struct tw_error *err);
void tw_instrumented_unwatch(struct tw_instrumented_watch *watch); /* NULL is fine */
const struct tw_range *tw_instrumented_watch_ranges(const struct tw_instrumented_watch *watch,
                                                    size_t *count);

/* From when this returns on, loads are recorded, or no more; with line states they always are.
 * DEADLINE_EXCEEDED: the program does not answer. A load under way at that moment may be missed. */
enum tw_code tw_instrumented_loads(struct tw_instrumented *program, bool wanted,
                                   uint64_t deadline_ns, struct tw_error *err);

/* Before a sync, where everything is watched: finds what the program has begun to store to.
 * RESOURCE_EXHAUSTED: it stores to more than the device has room for; nothing was lost. */
enum tw_code tw_instrumented_discover(struct tw_instrumented *program, struct tw_error *err);

/* Tells the device of every store made before the call. */
void tw_instrumented_sync(struct tw_instrumented *program);
/* After tw_tracker_start and tw_tracker_collect, before reading data. Returns the lines carried. */
size_t tw_instrumented_settle(struct tw_instrumented *program);

uint64_t tw_instrumented_address(const struct tw_instrumented *program, uint64_t device_page);
uint64_t tw_instrumented_device_address(const struct tw_instrumented *program, uint64_t address);

/* Reads the program's memory. NOT_FOUND when it is not mapped there. */
enum tw_code tw_instrumented_read(const struct tw_instrumented *program, uint64_t address,
                                  void *buffer, size_t size, struct tw_error *err);

struct tw_instrumented_stats {
    uint64_t threads;         /* with a record now */
    uint64_t threads_refused; /* beyond TW_INST_THREADS_MAX: their stores may be read too early */
    uint64_t unsettled;       /* threads that may have had a store under way at the attachment */
    uint64_t objects;         /* of the program without instrumentation */
    uint64_t carried_lines;   /* since the attachment */
    uint64_t ring_full;       /* stores that were marked because a ring was full */
    uint64_t barriers;        /* TW_INST_OWNED: in all its threads, since the attachment, */
    uint64_t slow_barriers;   /* or, where the kernel lacks those, in all programs */
    bool records_loads;       /* by what it says of itself */
    uint64_t loads, stores;   /* events of rings: misses and upgrades, not all accesses */
};
void tw_instrumented_stats_get(const struct tw_instrumented *program,
                               struct tw_instrumented_stats *out);

/* Objects of the program whose stores are not seen; returns how many there are in all. */
size_t tw_instrumented_objects(const struct tw_instrumented *program, struct tw_inst_object *out,
                               size_t max);
extern const char *const tw_instrumented_blind_spots[];

/* ---- False sharing (TW_INST_SHARING) --------------------------------------------------------- */

/* Lines of the watched windows that several threads have stored to since the last call. Returns how
 * many there are, of which at most `max`, and at most 256, are put out. A sample: a thread's record
 * of a line may have been displaced by another line's. */
size_t tw_instrumented_sharing_take(struct tw_instrumented *program, struct tw_shared_line *out,
                                    size_t max);

/* Whether the program that runs as `pid` carries the runtime: its executable has the note. What the
 * file says is not trusted with more than this. */
bool tw_instrumented_built(pid_t pid);

/* Test-only switches that break one rule each, for the mutation check. */
struct tw_instrumented_mutations {
    bool forget_in_flight; /* do not carry */
    bool skip_barrier;
};
void tw_instrumented_mutate(struct tw_instrumented *program,
                            struct tw_instrumented_mutations mutations);

#endif
