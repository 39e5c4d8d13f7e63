/* The QEMU attachment: a guest under TCG whose every store our plugin reports.
 *
 * The agent owns a run directory for each VM; in it live RAM (`ram`, a shared file), the link
 * (`link`, shared memory written by the plugin), `qmp.sock`, `serial.log`, `qemu.log`. They are
 * files, not anonymous memory, so that a restarted agent can adopt a machine that ran on.
 *
 * Nothing here blocks: start, QMP and adoption proceed in tw_qemu_step(), which the owner calls
 * when tw_qemu_fd() is readable and at least every 10 ms while an operation is under way.
 * One thread owns a tw_qemu. */
#ifndef TOWLINE_HOSTS_QEMU_QEMU_H
#define TOWLINE_HOSTS_QEMU_QEMU_H

#include "base/clock.h"
#include "base/error.h"
#include "base/machine.h"
#include "hosts/cache/cache.h"
#include "hosts/host.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct tw_qemu;

struct tw_qemu_config {
    const char *name;        /* VM name */
    const char *run_dir;     /* exists, belongs to this VM alone; on tmpfs for speed */
    const char *qemu_binary; /* "qemu-system-x86_64" */
    const char *plugin;      /* path of our plugin */
    const char *kernel;
    const char *initrd;       /* NULL or "" = none */
    const char *command_line; /* NULL or "" = none */
    uint64_t memory_bytes;
    uint32_t vcpus;
    const struct tw_cache_config *cache; /* NULL: every store is written back at once */
    bool incoming; /* starts without running, waiting for TW_HOST_LOAD_STATE */
    const struct tw_clock *clock;
    uint64_t start_timeout_ns;  /* until QMP answers, or QEMU has at least worked; 0 = 20 s */
    uint32_t ring_events;       /* events of a vCPU's ring, a power of two; 0 = a good size */
    unsigned fault_workers;     /* for touches of memory that is not there yet; 0 = 2 */
    const char *plugin_options; /* appended to -plugin, NULL or "" = none; see plugin.c */
};

/* The steps of a host operation (STOP, CONTINUE, SAVE_STATE, LOAD_STATE). */
extern const struct tw_machine_table tw_qemu_operation_table;

enum tw_qemu_status {
    TW_QEMU_STARTING, /* the process exists; QMP not ready yet */
    TW_QEMU_RUNNING,
    TW_QEMU_PAUSED, /* stopped, incoming, or just adopted and not running */
    TW_QEMU_EXITED, /* the process is gone; see tw_qemu_exit_reason */
};

/* Makes RAM and link files and starts the process, in a session of its own so that it outlives
 * the agent. The run directory must hold none of these files yet. */
enum tw_code tw_qemu_spawn(const struct tw_qemu_config *config, struct tw_qemu **qemu,
                           struct tw_error *err);

/* Attaches to a machine that another agent process started with the same config. `start_ticks` is
 * field 22 of /proc/PID/stat; NOT_FOUND when that process is no more. */
enum tw_code tw_qemu_adopt(const struct tw_qemu_config *config, pid_t pid, uint64_t start_ticks,
                           struct tw_qemu **qemu, struct tw_error *err);

/* Ends every process that names this run directory in its command line: what was being started when
 * an agent before this one was killed, and is in no record. */
void tw_qemu_end_strays(const char *run_dir);

void tw_qemu_step(struct tw_qemu *qemu);
/* Readable when tw_qemu_step() has something to do: QMP, state sockets, the end of the process, and
 * the timers of what is under way. -1 while there is none. */
int tw_qemu_fd(const struct tw_qemu *qemu);

enum tw_qemu_status tw_qemu_status_get(const struct tw_qemu *qemu);
const char *tw_qemu_exit_reason(const struct tw_qemu *qemu); /* "" while it lives */
pid_t tw_qemu_pid(const struct tw_qemu *qemu);
uint64_t tw_qemu_start_ticks(const struct tw_qemu *qemu);

/* The host interface of this machine. Valid until tw_qemu_release. */
struct tw_host *tw_qemu_host(struct tw_qemu *qemu);

struct tw_qemu_link_stats {
    const char *address_mode; /* how the plugin gets addresses: "host" or "api", by self-check;
                                 "checking" in the first moments of the guest */
    uint64_t stores;          /* stores seen (mark link) or loads and stores (ring link) */
    uint64_t ring_overflows;  /* events that went to the mark map because a ring was full */
    uint64_t self_checks;     /* comparisons of both ways to an address */
    uint64_t self_check_failures;
};
void tw_qemu_link_stats_get(const struct tw_qemu *qemu, struct tw_qemu_link_stats *out);

/* SIGKILL, reap, remove every file of the run directory (and the directory). */
void tw_qemu_destroy(struct tw_qemu *qemu);
/* Lets go of the machine without touching it (the agent ends, the guest runs on). */
void tw_qemu_release(struct tw_qemu *qemu);

#endif
