#include "hosts/qemu/qemu_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/log.h"

#define STARTING_PERIOD_NS (5 * TW_MS)   /* looks for the QMP socket */
#define DRAIN_PERIOD_NS    (2 * TW_MS)   /* event rings of a running guest */
#define RECONNECT_NS       (100 * TW_MS) /* after QEMU dropped the QMP connection */
#define KILL_WAIT_MS       5000
#define SHORT_KILL_WAIT_MS 100 /* in a step: tried again in the next */
#define LOGS_PERIOD_NS     TW_SEC
#define EVENTS_PER_STEP    16

/* ---- The link's messages to the device ------------------------------------------------------- */

static void page_written(void *ctx, uint64_t page, uint64_t lines)
{
    const struct tw_qemu *q = ctx;
    tw_device_message_page(q->device, TW_MEM_WR, page, lines);
}

/* Stores that found their ring full. The caches may hold such a line in any state, so it goes
 * through them: copies are dropped and the device hears of the write. */
static void page_overflowed(void *ctx, uint64_t page, uint64_t lines)
{
    const struct tw_qemu *q = ctx;
    for (; lines; lines &= lines - 1) {
        const uint64_t line = (uint64_t)__builtin_ctzll(lines);
        tw_cache_dma_write(q->cache, (page << TW_PAGE_SHIFT) + (line << TW_LINE_SHIFT));
    }
}

static void event_seen(void *ctx, uint32_t vcpu, uint64_t address, bool store)
{
    const struct tw_qemu *q = ctx;
    if (store)
        tw_cache_store(q->cache, vcpu, address);
    else
        tw_cache_load(q->cache, vcpu, address);
}

static void message_from_cache(void *ctx, enum tw_link_message message, uint64_t address)
{
    const struct tw_qemu *q = ctx;
    tw_device_message(q->device, message, address);
}

static void drain_rings(struct tw_qemu *q)
{
    for (uint32_t vcpu = 0; vcpu < q->link.ring_count; vcpu++) {
        bool sane;
        tw_link_ring_drain(&q->link, vcpu, event_seen, q, &sane);
        if (sane)
            continue;
        tw_log(TW_LOG_ERROR, q->where, "event ring makes no sense; all of RAM counts as dirty",
               "vcpu=%u", vcpu);
        for (uint64_t page = 0; page < q->link.map.page_count; page++)
            page_overflowed(q, page, TW_ALL_LINES);
    }
}

static void host_sync(void *host)
{
    struct tw_qemu *q = host;
    drain_rings(q);
    tw_link_scan(&q->link.map, q->cache ? page_overflowed : page_written, q);
}

/* ---- The host interface ---------------------------------------------------------------------- */

static void look_at_process(struct tw_qemu *q)
{
    if (q->status == TW_QEMU_EXITED || !tw_qemu_process_check(&q->process, q->log_path))
        return;
    q->status = TW_QEMU_EXITED;
    if (q->process.pidfd >= 0) /* it would be ready from now on */
        epoll_ctl(q->epoll_fd, EPOLL_CTL_DEL, q->process.pidfd, NULL);
}

static bool host_alive(void *host)
{
    struct tw_qemu *q = host;
    look_at_process(q);
    return q->status != TW_QEMU_EXITED;
}

static enum tw_code host_begin(void *host, enum tw_host_operation op,
                               const struct tw_host_state *state, uint64_t deadline_ns,
                               struct tw_error *err)
{
    return tw_operation_begin(host, op, state, deadline_ns, err);
}

static bool host_poll(void *host, struct tw_host_state *state, enum tw_code *code,
                      struct tw_error *err)
{
    tw_qemu_step(host);
    return tw_operation_take(host, state, code, err);
}

static struct tw_range host_next_data(void *host, uint64_t address)
{
    const struct tw_qemu *q = host;
    return tw_memory_next_data(&q->memory, address);
}

static enum tw_code host_reserve(void *host, struct tw_range range, struct tw_error *err)
{
    struct tw_qemu *q = host;
    return tw_memory_reserve(&q->memory, q->where, range, err);
}

static const struct tw_host_ops host_ops = {
    .sync = host_sync,
    .begin = host_begin,
    .poll = host_poll,
    .alive = host_alive,
    .next_data = host_next_data,
    .reserve = host_reserve,
};

/* ---- Making and freeing the object ----------------------------------------------------------- */

static bool has_cache(const struct tw_cache_config *c)
{
    return c && (c->l1.size_bytes || c->l2.size_bytes || c->last.size_bytes);
}

static enum tw_code open_device(struct tw_qemu *q, const struct tw_qemu_config *config,
                                struct tw_error *err)
{
    const struct tw_link_sink sink = {.message = message_from_cache, .ctx = q};
    enum tw_code code = TW_OK;
    if (has_cache(config->cache)) {
        code = tw_cache_open(config->cache, &sink, &q->cache, err);
        q->snoop = (struct tw_snoop_ops){.snoop = tw_cache_snoop, .ctx = q->cache};
    }
    const struct tw_device_config device = {.memory_bytes = config->memory_bytes,
                                            .snoop = q->cache ? &q->snoop : NULL};
    return code ? code : tw_device_open(&device, &q->device, err);
}

static enum tw_code open_polling(struct tw_qemu *q, struct tw_error *err)
{
    q->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    q->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN};
    if (q->epoll_fd < 0 || q->timer_fd < 0 ||
        epoll_ctl(q->epoll_fd, EPOLL_CTL_ADD, q->timer_fd, &e) < 0)
        return tw_fail_errno(err, errno, q->where, "cannot make a timer and an epoll set");
    return TW_OK;
}

static enum tw_code open_files(struct tw_qemu *q, const struct tw_qemu_config *config, bool create,
                               struct tw_error *err)
{
    const struct tw_link_config link = {
        .kind = has_cache(config->cache) ? TW_LINK_RING : TW_LINK_MARK,
        .memory_bytes = config->memory_bytes,
        .low_memory_bytes = tw_spawn_low_memory(config->memory_bytes),
        .vcpus = config->vcpus,
        .ring_events = config->ring_events,
    };
    enum tw_code code = tw_memory_open(q->ram_path, config->memory_bytes, create, &q->memory, err);
    if (code)
        return code;
    code = create ? tw_link_create(q->link_path, &link, &q->link, err)
                  : tw_link_attach(q->link_path, &link, &q->link, err);
    if (code && create)
        unlink(q->ram_path);
    return code;
}

static void free_qemu(struct tw_qemu *q)
{
    if (!q)
        return;
    tw_operation_close(q);
    tw_guard_close(q);
    tw_qmp_close(q->qmp);
    tw_device_close(q->device);
    tw_cache_close(q->cache);
    tw_link_close(&q->link);
    tw_memory_close(&q->memory);
    tw_qemu_process_let_go(&q->process);
    if (q->epoll_fd >= 0)
        close(q->epoll_fd);
    if (q->timer_fd >= 0)
        close(q->timer_fd);
    free(q->name);
    free(q);
}

static bool place(const struct tw_qemu *q, char out[PATH_MAX], const char *name)
{
    return snprintf(out, PATH_MAX, "%s/%s", q->run_dir, name) < PATH_MAX;
}

/* Everything but files and process. */
static enum tw_code make_qemu(const struct tw_qemu_config *config, struct tw_qemu **qemu,
                              struct tw_error *err)
{
    const char *name = config->name && config->name[0] ? config->name : NULL;
    if (!name || !config->run_dir || strlen(config->run_dir) >= PATH_MAX - 32)
        return tw_fail(err, TW_INVALID_ARGUMENT, "vm", "a name and a run directory", NULL,
                       "incomplete configuration");
    struct tw_qemu *q = calloc(1, sizeof *q);
    if (!q)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, name, NULL, NULL, "out of memory");
    q->epoll_fd = q->timer_fd = q->memory.fd = q->process.pidfd = -1;
    q->guard.socket = q->guard.fd = -1;
    tw_operation_init(q);
    q->name = strdup(name);
    snprintf(q->where, sizeof q->where, "vm %s", name);
    strcpy(q->run_dir, config->run_dir);
    q->clock = config->clock ? config->clock : &tw_monotonic;
    q->incoming = config->incoming;
    q->fault_workers = config->fault_workers;
    const bool fits = place(q, q->ram_path, "ram") && place(q, q->link_path, "link") &&
                      place(q, q->qmp_path, "qmp.sock") && place(q, q->log_path, "qemu.log") &&
                      place(q, q->serial_path, "serial.log") &&
                      place(q, q->save_path, "save.sock") && place(q, q->load_path, "load.sock") &&
                      place(q, q->guard_path, "guard.sock");
    enum tw_code code = TW_OK;
    if (!q->name || !fits)
        code = tw_fail(err, TW_RESOURCE_EXHAUSTED, q->where, NULL, NULL, "out of memory");
    if (code == TW_OK)
        code = tw_spawn_check(config, q, err);
    if (code == TW_OK)
        code = open_polling(q, err);
    if (code == TW_OK)
        code = open_device(q, config, err);
    if (code) {
        free_qemu(q);
        return code;
    }
    q->host = (struct tw_host){.ops = &host_ops,
                               .ctx = q,
                               .memory_bytes = config->memory_bytes,
                               .device = q->device,
                               .faults = &tw_guard_ops,
                               .pace = &tw_qemu_pace_ops,
                               .sees_all_writers = false};
    *qemu = q;
    return TW_OK;
}

/* ---- QMP ------------------------------------------------------------------------------------- */

static void on_event(void *ctx, const char *name, const json_t *data)
{
    struct tw_qemu *q = ctx;
    if (q->status_known && strcmp(name, "STOP") == 0)
        q->status = TW_QEMU_PAUSED;
    if (q->status_known && strcmp(name, "RESUME") == 0)
        q->status = TW_QEMU_RUNNING;
    tw_operation_event(q, name, data);
}

static enum tw_code open_qmp(struct tw_qemu *q, uint64_t deadline_ns, struct tw_error *err)
{
    const struct tw_qmp_config config = {
        .path = q->qmp_path,
        .clock = q->clock,
        .ready_deadline_ns = deadline_ns,
        .epoll_fd = q->epoll_fd,
        .event = on_event,
        .ctx = q,
    };
    q->status_query = 0;
    q->status_known = false;
    return tw_qmp_open(&config, &q->qmp, err);
}

/* What the machine does, asked for after each connection. */
static void take_status(struct tw_qemu *q)
{
    json_t *result = NULL;
    enum tw_code code;
    if (q->status_query == 0) {
        tw_qmp_send(q->qmp, "query-status", NULL, tw_after(tw_now(q->clock), 10 * TW_SEC),
                    &q->status_query, NULL);
        return;
    }
    if (!tw_qmp_take(q->qmp, q->status_query, &result, &code, NULL))
        return;
    q->status_query = 0; /* asked again when this failed */
    const char *status = json_string_value(json_object_get(result, "status"));
    if (code == TW_OK && status && strcmp(status, "finish-migrate") == 0) {
        /* The last agent died in the middle of a save: asked again when that is over. */
        tw_qmp_send(q->qmp, "migrate_cancel", NULL, TW_NEVER, NULL, NULL);
    } else if (code == TW_OK && status) {
        q->status_known = q->answered_once = true;
        q->status = strcmp(status, "running") == 0 ? TW_QEMU_RUNNING : TW_QEMU_PAUSED;
        q->incoming = strcmp(status, "inmigrate") == 0;
        q->listening = q->incoming && access(q->load_path, F_OK) == 0;
        q->saved = strcmp(status, "postmigrate") == 0;
    }
    json_decref(result);
}

/* On a busy machine QEMU gets little processor time: while it uses what it gets, it has more time
 * to start, within a bound. */
static void start_deadline_set(struct tw_qemu *q)
{
    q->start_cpu_ticks = tw_process_cpu_ticks(q->process.pid);
    q->start_deadline_ns = tw_after(tw_now(q->clock), q->start_timeout_ns);
    q->start_deadlines++;
}

static bool start_goes_on(struct tw_qemu *q)
{
    if (q->start_deadlines >= TW_QEMU_STARTS_MAX ||
        tw_process_cpu_ticks(q->process.pid) <= q->start_cpu_ticks)
        return false;
    start_deadline_set(q);
    return true;
}

/* The connection is lost, or never came. A machine that we start and that never answered is given
 * up; one that runs on is tried again. */
static void reconnect(struct tw_qemu *q)
{
    const uint64_t now = tw_now(q->clock);
    if (!q->adopted && !q->answered_once && now >= q->start_deadline_ns && !start_goes_on(q)) {
        if (tw_process_kill(&q->process, q->log_path, SHORT_KILL_WAIT_MS))
            snprintf(q->process.reason, sizeof q->process.reason, "%s",
                     "QMP did not answer in time, so the machine was ended");
        look_at_process(q);
        return;
    }
    if (q->reconnect_ns == 0) {
        q->reconnect_ns = tw_after(now, RECONNECT_NS);
    } else if (now >= q->reconnect_ns) {
        struct tw_qmp *old = q->qmp;
        q->reconnect_ns = 0;
        const bool starting = !q->adopted && !q->answered_once;
        if (open_qmp(q, starting ? q->start_deadline_ns : tw_after(now, 10 * TW_SEC), NULL) ==
            TW_OK)
            tw_qmp_close(old);
    }
}

/* Logs are bounded: a guest may print for ever, and the run directory is memory. */
static void bound_logs(struct tw_qemu *q)
{
    const uint64_t now = tw_now(q->clock);
    if (now < q->logs_due_ns)
        return;
    q->logs_due_ns = tw_after(now, LOGS_PERIOD_NS);
    tw_log_file_bound(q->serial_path);
    tw_log_file_bound(q->log_path);
}

/* ---- Steps ----------------------------------------------------------------------------------- */

static uint64_t next_due(const struct tw_qemu *q, uint64_t now)
{
    uint64_t due = tw_operation_due_ns(q);
    uint64_t period = 0;
    if (q->status == TW_QEMU_EXITED)
        return TW_NEVER;
    if (!q->status_known || tw_qmp_state_get(q->qmp) != TW_QMP_READY)
        period = STARTING_PERIOD_NS;
    if (q->cache && q->status == TW_QEMU_RUNNING)
        period = DRAIN_PERIOD_NS;
    if (period && now + period < due)
        due = now + period;
    return due;
}

static void set_timer(struct tw_qemu *q)
{
    const uint64_t now = tw_now(q->clock);
    const uint64_t due = next_due(q, now);
    struct itimerspec t = {0};
    if (due == TW_NEVER && q->timer_ns == 0)
        return;
    if (due != TW_NEVER) {
        const uint64_t wait = due > now ? due - now : 1;
        t.it_value.tv_sec = (time_t)(wait / TW_SEC);
        t.it_value.tv_nsec = (long)(wait % TW_SEC);
    }
    q->timer_ns = due == TW_NEVER ? 0 : due;
    timerfd_settime(q->timer_fd, 0, &t, NULL);
}

void tw_qemu_step(struct tw_qemu *q)
{
    if (q->status != TW_QEMU_EXITED) {
        look_at_process(q);
        tw_qmp_step(q->qmp);
        if (tw_qmp_state_get(q->qmp) == TW_QMP_READY && !q->status_known)
            take_status(q);
        if (q->cache)
            drain_rings(q);
        bound_logs(q);
    }
    tw_operation_step(q);
    if (q->status != TW_QEMU_EXITED && tw_qmp_state_get(q->qmp) == TW_QMP_FAILED)
        reconnect(q);
    set_timer(q); /* also clears its readiness */
}

int tw_qemu_fd(const struct tw_qemu *qemu)
{
    return qemu->epoll_fd;
}

/* ---- Start and end --------------------------------------------------------------------------- */

static void remove_files(const struct tw_qemu *q)
{
    DIR *dir = opendir(q->run_dir);
    for (struct dirent *e; dir && (e = readdir(dir));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            unlinkat(dirfd(dir), e->d_name, 0);
    if (dir)
        closedir(dir);
    rmdir(q->run_dir);
}

/* The process exists: connects to it. */
static enum tw_code attend(struct tw_qemu *q, pid_t pid, uint64_t start_ticks, uint64_t timeout_ns,
                           struct tw_error *err)
{
    struct epoll_event e = {.events = EPOLLIN};
    tw_process_hold(&q->process, pid, start_ticks);
    if (q->process.pidfd >= 0)
        epoll_ctl(q->epoll_fd, EPOLL_CTL_ADD, q->process.pidfd, &e);
    q->host.memory = q->memory.bytes;
    q->start_timeout_ns = timeout_ns;
    start_deadline_set(q);
    const enum tw_code code = open_qmp(q, q->start_deadline_ns, err);
    if (code == TW_OK)
        set_timer(q);
    return code;
}

enum tw_code tw_qemu_spawn(const struct tw_qemu_config *config, struct tw_qemu **qemu,
                           struct tw_error *err)
{
    struct tw_qemu *q = NULL;
    pid_t pid = -1;
    enum tw_code code = make_qemu(config, &q, err);
    if (code)
        return code;
    code = open_files(q, config, true, err);
    if (code) {
        free_qemu(q);
        return code;
    }
    code = tw_spawn_process(config, q, &pid, err);
    if (code == TW_OK) {
        code = attend(q, pid, tw_process_start_ticks(pid),
                      config->start_timeout_ns ? config->start_timeout_ns : TW_QEMU_START_TIMEOUT,
                      err);
        if (code)
            tw_process_kill(&q->process, q->log_path, KILL_WAIT_MS);
    }
    if (code) {
        unlink(q->ram_path);
        unlink(q->link_path);
        unlink(q->log_path);
        free_qemu(q);
        return code;
    }
    *qemu = q;
    return TW_OK;
}

enum tw_code tw_qemu_adopt(const struct tw_qemu_config *config, pid_t pid, uint64_t start_ticks,
                           struct tw_qemu **qemu, struct tw_error *err)
{
    struct tw_qemu *q = NULL;
    enum tw_code code = make_qemu(config, &q, err);
    if (code)
        return code;
    q->adopted = true;
    if (pid <= 0 || start_ticks == 0 || tw_process_start_ticks(pid) != start_ticks)
        code = tw_fail(err, TW_NOT_FOUND, q->where, NULL, NULL,
                       "process %d of start time %llu is no more", (int)pid,
                       (unsigned long long)start_ticks);
    if (code == TW_OK)
        code = open_files(q, config, false, err);
    if (code == TW_OK) /* an agent before this one may have slowed somebody */
        tw_qemu_pace_ops.rule(q, &(struct tw_pace_rule){0});
    if (code == TW_OK)
        code = attend(q, pid, start_ticks, TW_QEMU_START_TIMEOUT, err);
    /* Again, now that a descriptor holds the process: the number may have changed hands. */
    if (code == TW_OK && tw_process_start_ticks(pid) != start_ticks)
        code =
            tw_fail(err, TW_NOT_FOUND, q->where, NULL, NULL, "process %d has just ended", (int)pid);
    if (code) {
        free_qemu(q);
        return code;
    }
    *qemu = q;
    return TW_OK;
}

void tw_qemu_destroy(struct tw_qemu *qemu)
{
    if (!qemu)
        return;
    if (!tw_process_kill(&qemu->process, qemu->log_path, KILL_WAIT_MS))
        tw_log(TW_LOG_ERROR, qemu->where, "process does not end", "pid=%d", (int)qemu->process.pid);
    remove_files(qemu);
    free_qemu(qemu);
}

void tw_qemu_release(struct tw_qemu *qemu)
{
    free_qemu(qemu);
}

/* ---- Questions ------------------------------------------------------------------------------- */

enum tw_qemu_status tw_qemu_status_get(const struct tw_qemu *qemu)
{
    return qemu->status;
}

const char *tw_qemu_exit_reason(const struct tw_qemu *qemu)
{
    return qemu->status == TW_QEMU_EXITED ? qemu->process.reason : "";
}

pid_t tw_qemu_pid(const struct tw_qemu *qemu)
{
    return qemu->process.pid;
}

uint64_t tw_qemu_start_ticks(const struct tw_qemu *qemu)
{
    return qemu->process.start_ticks;
}

struct tw_host *tw_qemu_host(struct tw_qemu *qemu)
{
    return &qemu->host;
}

void tw_qemu_link_stats_get(const struct tw_qemu *qemu, struct tw_qemu_link_stats *out)
{
    static const char *const modes[] = {"checking", "host", "api"};
    struct tw_link_vcpu sum;
    const uint32_t mode = __atomic_load_n(&qemu->link.header->address_mode, __ATOMIC_RELAXED);
    tw_link_counters_sum(&qemu->link, &sum);
    *out = (struct tw_qemu_link_stats){
        .address_mode = modes[mode <= TW_LINK_API ? mode : TW_LINK_API],
        .stores = sum.stores + sum.loads,
        .ring_overflows = sum.ring_overflows,
        .self_checks = sum.self_checks,
        .self_check_failures = sum.self_check_failures,
    };
}
