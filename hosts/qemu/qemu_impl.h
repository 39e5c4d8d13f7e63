/* What the files of the attachment share. */
#ifndef TOWLINE_HOSTS_QEMU_QEMU_IMPL_H
#define TOWLINE_HOSTS_QEMU_QEMU_IMPL_H

#include "hosts/link/link.h"
#include "hosts/qemu/fault_crew.h"
#include "hosts/qemu/qemu.h"
#include "hosts/qemu/qmp.h"

#include <limits.h>

#define TW_QEMU_START_TIMEOUT (20 * TW_SEC)
#define TW_QEMU_STARTS_MAX    6u /* such times, while it works */
#define TW_QEMU_MEMORY_MIN    (UINT64_C(4) << 20)
#define TW_QEMU_MEMORY_STEP   8192u /* QEMU rounds the size of a machine up to this */
#define TW_QEMU_RESERVE_STEP  (UINT64_C(64) << 10)

/* ---- The process (process.c) ----------------------------------------------------------------- */

struct tw_qemu_process {
    pid_t pid;
    uint64_t start_ticks;
    int pidfd;  /* -1 where the kernel has none: then the process is looked at in each step */
    bool ended; /* and reaped, when it was our child */
    char reason[256];
};

/* Field 22 of /proc/PID/stat; 0 when there is no such process, or only its remains. */
uint64_t tw_process_start_ticks(pid_t pid);
/* Processor time that it has had, in ticks of the kernel; 0 as above. */
uint64_t tw_process_cpu_ticks(pid_t pid);
void tw_process_hold(struct tw_qemu_process *p, pid_t pid, uint64_t start_ticks);
/* True when it has ended; the reason then has the status and the last line of `log_path`. */
bool tw_qemu_process_check(struct tw_qemu_process *p, const char *log_path);
/* SIGKILL and wait for the end, at most `wait_ms`. */
bool tw_process_kill(struct tw_qemu_process *p, const char *log_path, int wait_ms);
void tw_qemu_process_let_go(struct tw_qemu_process *p);
/* Shortens a log that its writer appends to, to its last part, when it has grown too long. */
#define TW_LOG_FILE_MAX  (UINT64_C(16) << 20) /* bytes */
#define TW_LOG_FILE_KEPT (UINT64_C(1) << 20)
void tw_log_file_bound(const char *path);

/* ---- Memory (memory.c) ----------------------------------------------------------------------- */

struct tw_qemu_memory {
    int fd;
    uint8_t *bytes;
    uint64_t size;
    uint64_t *reserved; /* a bit for each TW_QEMU_RESERVE_STEP */
};

enum tw_code tw_memory_open(const char *path, uint64_t size, bool create, struct tw_qemu_memory *m,
                            struct tw_error *err);
void tw_memory_close(struct tw_qemu_memory *m);
struct tw_range tw_memory_next_data(const struct tw_qemu_memory *m, uint64_t address);
enum tw_code tw_memory_reserve(struct tw_qemu_memory *m, const char *where, struct tw_range range,
                               struct tw_error *err);

/* ---- An operation under way (operation.c) ---------------------------------------------------- */

enum tw_qemu_step {
    TW_STEP_IDLE,
    TW_STEP_STOPPING,
    TW_STEP_CONTINUING,
    TW_STEP_CONTINUE_WAITING,
    TW_STEP_SAVE_CLEARING,
    TW_STEP_SAVE_CAPABILITIES,
    TW_STEP_SAVE_STARTING,
    TW_STEP_SAVE_STREAMING,
    TW_STEP_SAVE_SETTLING,
    TW_STEP_AWAIT_CAPABILITIES,
    TW_STEP_AWAIT_LISTENING,
    TW_STEP_LOAD_CAPABILITIES,
    TW_STEP_LOAD_LISTENING,
    TW_STEP_LOAD_FEEDING,
    TW_STEP_LOAD_SETTLING,
    TW_STEP_ENDED,
    TW_STEP_COUNT,
};

struct tw_qemu_operation {
    struct tw_machine machine;
    uint64_t deadline_ns;
    uint64_t command;       /* QMP number that is awaited; 0 = none */
    uint64_t retry_ns;      /* when to ask again; 0 = not */
    bool completed, failed; /* QEMU's word on the migration stream */
    bool drained;           /* the stream has ended */
    int listener, stream;   /* sockets of the state; -1 = none */
    uint8_t *data;
    size_t size, capacity;
    struct tw_error refusal; /* QEMU's answer to cont, while we look whether it is for good */
    bool past_save;          /* ... given, or looked at, when no save was in the way any more */
    const struct tw_host_state *feed;
    size_t fed;
    enum tw_code code; /* of an ended operation */
    struct tw_error err;
};

void tw_operation_init(struct tw_qemu *q);
enum tw_code tw_operation_begin(struct tw_qemu *q, enum tw_host_operation op,
                                const struct tw_host_state *state, uint64_t deadline_ns,
                                struct tw_error *err);
void tw_operation_step(struct tw_qemu *q);
void tw_operation_event(struct tw_qemu *q, const char *name, const json_t *data);
bool tw_operation_take(struct tw_qemu *q, struct tw_host_state *state, enum tw_code *code,
                       struct tw_error *err);
/* When it wants to be stepped without any descriptor being ready; TW_NEVER = not. */
uint64_t tw_operation_due_ns(const struct tw_qemu *q);
void tw_operation_close(struct tw_qemu *q);

/* ---- Memory under guard (guard.c) --------------------------------------------------------------
 */

struct tw_qemu_guard {
    int socket;                 /* to the plugin, until it has handed its memory out; -1 = none */
    int fd;                     /* userfaultfd of QEMU's memory; -1 = not under guard */
    uint64_t base;              /* address of RAM offset 0 in QEMU */
    struct tw_fault_crew *crew; /* NULL = not under guard */
    struct tw_host_fault_view view;
};

extern const struct tw_host_fault_ops tw_guard_ops;
/* Closes what the agent holds. The guard stays: whoever waits goes on waiting. */
void tw_guard_close(struct tw_qemu *q);

/* ---- Slowing its writers (pace.c) ------------------------------------------------------------ */

extern const struct tw_host_pace_ops tw_qemu_pace_ops;

/* ---- The machine (qemu.c) -------------------------------------------------------------------- */

struct tw_qemu {
    char *name;
    char where[64]; /* "vm NAME", for errors */
    const struct tw_clock *clock;
    bool incoming;  /* started to receive, and nothing loaded yet */
    bool listening; /* incoming, and QEMU listens for the state */
    bool saved;     /* stopped and saved: QEMU saves a state only once until it runs again */
    enum tw_qemu_status status;
    bool adopted;
    uint64_t start_deadline_ns, start_timeout_ns;
    uint64_t start_cpu_ticks; /* of the process, when the deadline was set */
    unsigned start_deadlines; /* that have been set */
    uint64_t status_query;    /* QMP number of query-status; 0 = none */
    bool status_known;        /* since the present connection */
    bool answered_once;       /* on any connection */
    uint64_t logs_due_ns;
    uint64_t reconnect_ns;

    char run_dir[PATH_MAX];
    char ram_path[PATH_MAX], link_path[PATH_MAX], qmp_path[PATH_MAX];
    char log_path[PATH_MAX], serial_path[PATH_MAX], save_path[PATH_MAX], load_path[PATH_MAX];
    char guard_path[PATH_MAX];

    struct tw_qemu_process process;
    struct tw_qemu_memory memory;
    struct tw_qemu_guard guard;
    unsigned fault_workers; /* 0 = the crew's default */
    struct tw_link link;
    struct tw_qmp *qmp;
    int epoll_fd, timer_fd;
    uint64_t timer_ns; /* what the timer is set to; 0 = off */

    struct tw_device *device;
    struct tw_cache *cache; /* NULL with a mark link */
    struct tw_snoop_ops snoop;
    struct tw_qemu_operation operation;
    struct tw_host host;
};

/* ---- Starting one (spawn.c) ------------------------------------------------------------------ */

enum tw_code tw_spawn_check(const struct tw_qemu_config *config, const struct tw_qemu *q,
                            struct tw_error *err);
/* RAM of a q35 machine below the hole under 4 GiB. */
uint64_t tw_spawn_low_memory(uint64_t memory_bytes);
enum tw_code tw_spawn_process(const struct tw_qemu_config *config, const struct tw_qemu *q,
                              pid_t *pid, struct tw_error *err);

#endif
