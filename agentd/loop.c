/* The data thread: one loop over mailbox, fabrics, machines and migrations. */
#include "agentd/agent.h"

#include "base/log.h"
#include "base/thread.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#define MAILBOX_CAPACITY 128u
#define TURN_IDLE        (100 * TW_MS)
#define TURN_BUSY        (5 * TW_MS) /* while a machine starts or a job waits for one */
#define STOP_LIMIT       (3 * TW_SEC)

static void adopt_record(void *ctx, const Towline__V1__VmRecord *record)
{
    tw_vm_adopt(ctx, record);
}

static enum tw_code open_parts(struct tw_agent *a, struct tw_error *err)
{
    const struct tw_agent_config *c = &a->config;
    if (mkdir(c->run_dir, 0700) != 0 && errno != EEXIST)
        return tw_fail_errno(err, errno, c->run_dir, "run_dir: cannot make it");
    enum tw_code code = tw_record_store_open(c->state_dir, &a->store, err);
    if (code)
        return code;
    code = tw_paths_open(&a->paths, c, a->tls, &tw_job_fabric_events, a, err);
    const struct tw_agent_tracking_config tracking = {c->tracking_socket, c->instrumented_socket,
                                                      c->tracking_copies_bytes, a->guests};
    return code ? code : tw_agent_tracking_open(&tracking, &a->tracking, err);
}

static enum tw_code open_tls(struct tw_agent *a, struct tw_error *err)
{
    if (!tw_tls_files_given(&a->config.tls)) {
        tw_log(TW_LOG_WARN, "agent", "no TLS: whoever is on this machine may do anything", "");
        return TW_OK;
    }
    enum tw_code code = tw_tls_open(&a->config.tls, &a->tls, err);
    if (!code)
        code = tw_tls_expect_me(a->tls, TW_ROLE_AGENT, a->config.name, err);
    return code ? code : tw_tls_watch(a->tls, err);
}

enum tw_code tw_agent_open(const struct tw_agent_config *config, struct tw_agent **agent,
                           struct tw_error *err)
{
    struct tw_agent *a = calloc(1, sizeof *a);
    if (!a)
        return tw_fail_errno(err, ENOMEM, config->name, "cannot start");
    a->config = *config;
    a->started_ns = tw_now(&tw_monotonic);
    a->mailbox = tw_mailbox_open(MAILBOX_CAPACITY);
    a->diagnose = tw_diagnose_open(a);
    a->guests = tw_guests_open(config->meter_vms);
    enum tw_code code = open_tls(a, err);
    bool ready = a->mailbox && a->diagnose && a->guests &&
                 getrandom(&a->instance, sizeof a->instance, 0) == sizeof a->instance;
    if (!code && !ready)
        code = tw_fail(err, TW_RESOURCE_EXHAUSTED, config->name, NULL, NULL, "cannot start");
    if (!code)
        code = open_parts(a, err);
    a->instance >>= 11; /* 53 bits: what every JSON reader can hold */
    if (code) {
        tw_agent_close(a);
        return code;
    }
    if (tw_record_vm_each(a->store, adopt_record, a))
        tw_vm_sweep(a); /* only when every record could be read: a VM may not die of a bad disk */
    *agent = a;
    return TW_OK;
}

void tw_agent_close(struct tw_agent *agent)
{
    if (!agent)
        return;
    tw_agent_tracking_close(agent->tracking);
    tw_diagnose_close(agent->diagnose);
    tw_plans_free(agent);
    tw_mirrors_free(agent);
    while (agent->jobs)
        tw_job_free(agent->jobs);
    while (agent->vms)
        tw_vm_release(agent->vms);
    tw_paths_close(&agent->paths);
    tw_record_store_close(agent->store);
    tw_mailbox_close(agent->mailbox);
    tw_tls_close(agent->tls);
    tw_guests_close(agent->guests);
    free(agent);
}

/* Waits until something is ready or `deadline_ns`. */
static void wait_ready(struct tw_agent *a, uint64_t deadline_ns)
{
    struct pollfd fds[TW_AGENT_VMS_MAX + 3];
    nfds_t n = 0;
    fds[n++] = (struct pollfd){.fd = tw_mailbox_fd(a->mailbox), .events = POLLIN};
    fds[n++] = (struct pollfd){.fd = tw_fabric_fd(a->paths.tcp), .events = POLLIN};
    if (a->paths.verbs)
        fds[n++] = (struct pollfd){.fd = tw_fabric_fd(a->paths.verbs), .events = POLLIN};
    for (struct tw_vm *vm = a->vms; vm; vm = vm->next)
        if (vm->qemu && n < sizeof fds / sizeof *fds)
            fds[n++] = (struct pollfd){.fd = tw_qemu_fd(vm->qemu), .events = POLLIN};
    uint64_t now = tw_now(&tw_monotonic);
    uint64_t wait = deadline_ns > now ? deadline_ns - now : 0;
    struct timespec t = {.tv_sec = (time_t)(wait / TW_SEC), .tv_nsec = (long)(wait % TW_SEC)};
    ppoll(fds, n, &t, NULL);
}

/* One turn of everything; returns when the next is due. */
static uint64_t turn(struct tw_agent *a)
{
    uint64_t start = tw_now(&tw_monotonic);
    uint64_t next = start + TURN_IDLE;
    tw_mailbox_run(a->mailbox, a);
    tw_paths_poll(&a->paths);
    for (struct tw_vm *vm = a->vms, *after; vm; vm = after) {
        after = vm->next;
        if (tw_vm_busy(vm) && next > start + TURN_BUSY)
            next = start + TURN_BUSY;
        tw_vm_step(vm);
    }
    for (struct tw_job *job = a->jobs, *after; job; job = after) {
        after = job->next;
        uint64_t due = tw_job_step(job);
        if (due < next)
            next = due;
    }
    uint64_t mirrored = tw_mirrors_step(a);
    if (mirrored < next)
        next = mirrored;
    uint64_t planned = tw_plans_step(a);
    if (planned < next)
        next = planned;
    uint64_t measured = tw_guests_step(a);
    if (measured < next)
        next = measured;
    uint64_t took = tw_now(&tw_monotonic) - start;
    a->totals.turns++;
    if (took > a->totals.longest_turn_ns)
        a->totals.longest_turn_ns = took;
    return next;
}

/* Before the agent goes: sources that may still abort do, so that no guest is left paused. */
static void cancel_sources(struct tw_agent *a)
{
    uint64_t limit = tw_after(tw_now(&tw_monotonic), STOP_LIMIT);
    struct tw_error ignored;
    for (struct tw_job *job = a->jobs; job; job = job->next)
        if (job->source)
            tw_source_cancel(job->source, &ignored);
    bool active = true;
    while (active && tw_now(&tw_monotonic) < limit) {
        wait_ready(a, turn(a));
        active = false;
        for (struct tw_job *job = a->jobs; job; job = job->next)
            active |= job->source && tw_job_hand_over(job) == TW_HAND_OVER_ACTIVE;
    }
}

void tw_agent_run(struct tw_agent *agent)
{
    /* Guests wait for it; the loops of theirs that share the processor do not. */
    tw_thread_slice_ask(TW_THREAD_SHORT_SLICE);
    while (!atomic_load(&agent->stopping))
        wait_ready(agent, turn(agent));
    tw_mailbox_shut(agent->mailbox);
    cancel_sources(agent);
    tw_log(TW_LOG_INFO, "agent", "stopped", "vms_left_running=%u", agent->vm_count);
}
