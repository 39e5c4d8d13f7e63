/* hosts/qemu/qemu.h for guests without machines: an agent's hold on one, and its host interface. */
#include "tests/cluster/virtual/guest.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OPERATION_MOST (4 * TW_MS)
#define STATE_MOST     20000u
#define STATE_MAGIC    UINT64_C(0x5449545541455453)

struct tw_qemu {
    struct vt_machine *machine;
    struct tw_host host;
    struct tw_device *device;
    struct vt_node *node;
    bool busy;
    enum tw_host_operation op;
    uint64_t ends_ns;
    const struct tw_host_state *to_load;
    uint64_t known_ns; /* until then its status is not known */
    uint64_t guard_ns;
};

struct vt_machine *vt_machine_of(void *host)
{
    return ((struct tw_qemu *)host)->machine;
}

/* ---- The host interface ---------------------------------------------------------------------- */

static void host_sync(void *ctx)
{
    struct tw_qemu *q = ctx;
    struct vt_machine *m = q->machine;
    m->synced_ns = vt_now();
    for (uint64_t p = 0; m->alive && p < m->life->pages; p++) {
        if (m->marks[p])
            tw_device_message_page(q->device, TW_MEM_WR, p, m->marks[p]);
        m->marks[p] = 0;
    }
}

static void poke(void *ctx)
{
    vt_poke(ctx);
}

static enum tw_code host_begin(void *ctx, enum tw_host_operation op,
                               const struct tw_host_state *state, uint64_t deadline_ns,
                               struct tw_error *err)
{
    struct tw_qemu *q = ctx;
    (void)deadline_ns;
    if (q->busy)
        abort(); /* one at a time: a defect of the caller */
    if (vt_dead() || !q->machine->alive)
        return tw_fail(err, TW_UNAVAILABLE, q->machine->life->vm, NULL, NULL, "no process");
    q->busy = true;
    q->op = op;
    q->to_load = state;
    q->ends_ns = vt_now() + vt_below(OPERATION_MOST);
    vt_at(q->ends_ns, poke, q->node);
    return TW_OK;
}

static void save(struct vt_machine *m, struct tw_host_state *state)
{
    state->size = 16 + vt_below(STATE_MOST);
    state->data = calloc(1, state->size);
    const uint64_t head[] = {STATE_MAGIC, m->operations};
    memcpy(state->data, head, sizeof head);
}

static enum tw_code load(struct vt_machine *m, const struct tw_host_state *state,
                         struct tw_error *err)
{
    uint64_t head[2];
    if (state->size < sizeof head)
        return tw_fail(err, TW_DATA_LOSS, m->life->vm, NULL, NULL, "no device state");
    memcpy(head, state->data, sizeof head);
    if (head[0] != STATE_MAGIC)
        return tw_fail(err, TW_DATA_LOSS, m->life->vm, NULL, NULL, "no device state");
    m->operations = head[1];
    m->loaded = true;
    return TW_OK;
}

static enum tw_code act(struct tw_qemu *q, struct tw_host_state *state, struct tw_error *err)
{
    struct vt_machine *m = q->machine;
    switch (q->op) {
    case TW_HOST_STOP:
        m->running = false;
        return TW_OK;
    case TW_HOST_CONTINUE:
        vt_machine_continue(m);
        return TW_OK;
    case TW_HOST_SAVE_STATE:
        save(m, state);
        return TW_OK;
    case TW_HOST_LOAD_STATE:
        return load(m, q->to_load, err);
    default:
        return TW_OK;
    }
}

static bool host_poll(void *ctx, struct tw_host_state *state, enum tw_code *code,
                      struct tw_error *err)
{
    struct tw_qemu *q = ctx;
    struct vt_machine *m = q->machine;
    struct vt_waiter *loader = &m->waiters[VT_VCPUS];
    if (!q->busy)
        abort(); /* nothing was begun */
    if (m->alive && !vt_dead()) {
        if (vt_now() < q->ends_ns)
            return false;
        loader->address = 0;
        if (q->op == TW_HOST_LOAD_STATE && !vt_machine_may_touch(m, loader))
            return false;
        loader->waits = false;
    }
    q->busy = false;
    if (!m->alive || vt_dead())
        *code = tw_fail(err, TW_UNAVAILABLE, m->life->vm, NULL, NULL, "the process has ended");
    else
        *code = act(q, state, err);
    return true;
}

static bool host_alive(void *ctx)
{
    return ((struct tw_qemu *)ctx)->machine->alive;
}

static struct tw_range host_next_data(void *ctx, uint64_t address)
{
    const struct vt_machine *m = ((struct tw_qemu *)ctx)->machine;
    uint64_t page = tw_page_of(address), end;
    while (m->alive && page < m->life->pages && !m->data[page])
        page++;
    for (end = page; m->alive && end < m->life->pages && m->data[end];)
        end++;
    return (struct tw_range){page * TW_PAGE_SIZE, (end - page) * TW_PAGE_SIZE};
}

static enum tw_code host_reserve(void *ctx, struct tw_range range, struct tw_error *err)
{
    struct tw_qemu *q = ctx;
    if (q->node->disk.full)
        return tw_fail_errno(err, ENOSPC, q->machine->life->vm, "no room for memory");
    for (uint64_t p = tw_page_of(range.start); p < tw_page_of(range.start + range.length); p++)
        q->machine->data[p] = true;
    return TW_OK;
}

static const struct tw_host_ops host_ops = {
    .sync = host_sync,
    .begin = host_begin,
    .poll = host_poll,
    .alive = host_alive,
    .next_data = host_next_data,
    .reserve = host_reserve,
};

/* ---- Memory that is not there yet ------------------------------------------------------------ */

static bool fault_guard(void *ctx, enum tw_code *code, struct tw_error *err)
{
    struct tw_qemu *q = ctx;
    if (!q->guard_ns)
        q->guard_ns = vt_now() + vt_below(2 * TW_MS);
    if (vt_now() < q->guard_ns)
        return false;
    *code = q->machine->alive ? TW_OK
                              : tw_fail(err, TW_UNAVAILABLE, q->machine->life->vm, NULL, NULL,
                                        "the process has ended");
    q->machine->guarded = true;
    q->machine->life->follows = true;
    return true;
}

/* Whoever waits is told of again, whatever the last agent knew. */
static bool fault_rejoin(void *ctx, enum tw_code *code, struct tw_error *err)
{
    struct vt_machine *m = ((struct tw_qemu *)ctx)->machine;
    *code = m->alive
                ? TW_OK
                : tw_fail(err, TW_UNAVAILABLE, m->life->vm, NULL, NULL, "the process has ended");
    for (unsigned i = 0; i < VT_WAITERS; i++)
        m->waiters[i].told = false;
    return true;
}

static void fault_view(void *ctx, const struct tw_host_fault_view *view)
{
    struct vt_machine *m = ((struct tw_qemu *)ctx)->machine;
    m->view = view ? *view : (struct tw_host_fault_view){0};
}

static size_t fault_take(void *ctx, struct tw_host_fault *out, size_t max)
{
    struct vt_machine *m = ((struct tw_qemu *)ctx)->machine;
    size_t n = 0;
    for (unsigned i = 0; i < VT_WAITERS && n < max; i++) {
        if (!m->waiters[i].waits || m->waiters[i].told)
            continue;
        m->waiters[i].told = true;
        out[n++].address = m->waiters[i].address;
    }
    return n;
}

static enum tw_code fault_ready(void *ctx, uint64_t page, uint64_t pages, struct tw_error *err)
{
    struct vt_machine *m = ((struct tw_qemu *)ctx)->machine;
    (void)err;
    if (m->alive && !vt_dead())
        vt_machine_ready(m, page, pages);
    return TW_OK;
}

static void fault_release(void *ctx)
{
    struct vt_machine *m = ((struct tw_qemu *)ctx)->machine;
    if (!m->alive || !m->guarded || vt_dead())
        return;
    if (m->running) {
        vt_machine_ready(m, 0, m->life->pages);
        vt_guest_whole(m->life);
    }
    m->guarded = false;
}

static const struct tw_host_fault_ops fault_ops = {
    .guard = fault_guard,
    .view = fault_view,
    .rejoin = fault_rejoin,
    .take = fault_take,
    .ready = fault_ready,
    .release = fault_release,
};

/* ---- An agent's hold ------------------------------------------------------------------------- */

enum tw_code __wrap_tw_qemu_spawn(const struct tw_qemu_config *config, struct tw_qemu **qemu,
                                  struct tw_error *err);
enum tw_code __wrap_tw_qemu_adopt(const struct tw_qemu_config *config, pid_t pid,
                                  uint64_t start_ticks, struct tw_qemu **qemu,
                                  struct tw_error *err);
void __wrap_tw_qemu_end_strays(const char *run_dir);
void __wrap_tw_qemu_step(struct tw_qemu *qemu);
int __wrap_tw_qemu_fd(const struct tw_qemu *qemu);
enum tw_qemu_status __wrap_tw_qemu_status_get(const struct tw_qemu *qemu);
const char *__wrap_tw_qemu_exit_reason(const struct tw_qemu *qemu);
pid_t __wrap_tw_qemu_pid(const struct tw_qemu *qemu);
uint64_t __wrap_tw_qemu_start_ticks(const struct tw_qemu *qemu);
struct tw_host *__wrap_tw_qemu_host(struct tw_qemu *qemu);
void __wrap_tw_qemu_link_stats_get(const struct tw_qemu *qemu, struct tw_qemu_link_stats *out);
void __wrap_tw_qemu_destroy(struct tw_qemu *qemu);
void __wrap_tw_qemu_release(struct tw_qemu *qemu);

static enum tw_code hold(struct vt_machine *m, struct tw_qemu **qemu, struct tw_error *err)
{
    struct tw_qemu *q = calloc(1, sizeof *q);
    const struct tw_device_config device = {.memory_bytes = m->life->bytes};
    enum tw_code code = tw_device_open(&device, &q->device, err);
    if (code) {
        free(q);
        return code;
    }
    q->machine = m;
    q->node = vt_here();
    q->known_ns = vt_now() + vt_below(5 * TW_MS);
    if (q->known_ns < m->up_ns)
        q->known_ns = m->up_ns;
    q->host = (struct tw_host){.ops = &host_ops,
                               .ctx = q,
                               .memory = m->memory,
                               .memory_bytes = m->life->bytes,
                               .device = q->device,
                               .faults = &fault_ops,
                               .pace = &vt_pace_ops,
                               .sees_all_writers = vt_world.scenario->all_writers_seen};
    m->handle = q;
    vt_pace_adopted(m);
    *qemu = q;
    return TW_OK;
}

enum tw_code __wrap_tw_qemu_spawn(const struct tw_qemu_config *config, struct tw_qemu **qemu,
                                  struct tw_error *err)
{
    if (vt_dead())
        return tw_fail(err, TW_UNAVAILABLE, config->name, NULL, NULL, "the process is dead");
    struct vt_life *life = vt_life_of(config->name, config->memory_bytes);
    return hold(vt_machine_new(life, config->run_dir, config->incoming), qemu, err);
}

enum tw_code __wrap_tw_qemu_adopt(const struct tw_qemu_config *config, pid_t pid,
                                  uint64_t start_ticks, struct tw_qemu **qemu, struct tw_error *err)
{
    struct vt_machine *m = vt_machine_by_pid(pid);
    if (!m || !m->alive || start_ticks != (uint64_t)pid)
        return tw_fail(err, TW_NOT_FOUND, config->name, NULL, NULL, "the process is gone");
    return hold(m, qemu, err);
}

void __wrap_tw_qemu_end_strays(const char *run_dir)
{
    for (struct vt_machine *m = vt_machines; m; m = m->next)
        if (m->alive && !m->handle && !vt_dead() && strcmp(m->run_dir, run_dir) == 0)
            vt_machine_end(m, "no record knows it");
}

void __wrap_tw_qemu_step(struct tw_qemu *qemu)
{
    (void)qemu;
}

int __wrap_tw_qemu_fd(const struct tw_qemu *qemu)
{
    (void)qemu;
    return -1; /* timers poke the node's poller */
}

enum tw_qemu_status __wrap_tw_qemu_status_get(const struct tw_qemu *qemu)
{
    const struct vt_machine *m = qemu->machine;
    if (!m->alive)
        return TW_QEMU_EXITED;
    if (vt_now() < qemu->known_ns)
        return TW_QEMU_STARTING;
    return m->running ? TW_QEMU_RUNNING : TW_QEMU_PAUSED;
}

const char *__wrap_tw_qemu_exit_reason(const struct tw_qemu *qemu)
{
    return qemu->machine->alive ? "" : "killed by signal 9 (Killed)";
}

pid_t __wrap_tw_qemu_pid(const struct tw_qemu *qemu)
{
    return qemu->machine->pid;
}

uint64_t __wrap_tw_qemu_start_ticks(const struct tw_qemu *qemu)
{
    return (uint64_t)qemu->machine->pid;
}

struct tw_host *__wrap_tw_qemu_host(struct tw_qemu *qemu)
{
    return &qemu->host;
}

void __wrap_tw_qemu_link_stats_get(const struct tw_qemu *qemu, struct tw_qemu_link_stats *out)
{
    *out = (struct tw_qemu_link_stats){.address_mode = "host", .stores = qemu->machine->operations};
}

static void let_go(struct tw_qemu *q)
{
    if (q->machine->handle == q)
        q->machine->handle = NULL;
    q->machine->view = (struct tw_host_fault_view){0}; /* it was the agent's */
    tw_device_close(q->device);
    free(q);
}

void __wrap_tw_qemu_destroy(struct tw_qemu *qemu)
{
    if (!qemu)
        return;
    if (!vt_dead() && qemu->machine->alive)
        vt_machine_end(qemu->machine, "its agent has ended it");
    if (!vt_dead())
        remove(qemu->machine->run_dir);
    let_go(qemu);
}

/* What was under way may have reached the machine before its agent died, or not. */
void __wrap_tw_qemu_release(struct tw_qemu *qemu)
{
    struct vt_machine *m = qemu->machine;
    if (qemu->busy && m->alive && vt_below(2)) {
        if (qemu->op == TW_HOST_STOP)
            m->running = false;
        else if (qemu->op == TW_HOST_CONTINUE)
            vt_machine_continue(m);
    }
    if (vt_mutated("stop_takes_guests") && !vt_dead() && m->alive)
        vt_machine_end(m, "its agent ends");
    let_go(qemu);
}
