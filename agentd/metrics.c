/* /metrics, /healthz, /readyz of the agent. Pages are made on the data thread into a memory
 * stream and written out by the HTTP thread. Names are listed in docs/operations.md. */
#include "agentd/agent.h"

#include "fabric/verbs.h"
#include "rpc/http.h"

#include <stdlib.h>

#define PAGE_DEADLINE (2 * TW_SEC)

static void family(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void one(FILE *out, const char *name, const char *type, const char *help, uint64_t value)
{
    family(out, name, type, help);
    fprintf(out, "%s %llu\n", name, (unsigned long long)value);
}

static void totals_page(FILE *out, const struct tw_agent *a)
{
    const struct tw_agent_totals *t = &a->totals;
    family(out, "towline_agent_migrations_total", "counter",
           "Migrations ended, by side and outcome.");
    const struct {
        const char *side, *outcome;
        uint64_t n;
    } rows[] = {{"source", "completed", t->outgoing_completed},
                {"source", "aborted", t->outgoing_aborted},
                {"destination", "completed", t->incoming_completed},
                {"destination", "aborted", t->incoming_aborted}};
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++)
        fprintf(out, "towline_agent_migrations_total{side=\"%s\",outcome=\"%s\"} %llu\n",
                rows[i].side, rows[i].outcome, (unsigned long long)rows[i].n);
    uint64_t lost = 0;
    for (const struct tw_job *job = a->jobs; job; job = job->next)
        lost += job->destination && tw_job_peer_lost(job) &&
                tw_job_hand_over(job) == TW_HAND_OVER_COMMITTED_PARTLY;
    one(out, "towline_agent_postcopy_path_lost", "gauge",
        "VMs here whose memory follows them and whose path to the source is lost.", lost);
    one(out, "towline_agent_postcopy_reconnects_total", "counter",
        "Times that a lost path came back while memory followed, of ended migrations.",
        t->reconnects);
    one(out, "towline_agent_mirror_reserved_bytes", "gauge",
        "Memory kept here for migrations between others.", tw_mirrors_reserved(a));
    one(out, "towline_agent_mirrors_total", "counter",
        "Mirrors that came to hold all that followed.", t->mirrors_held);
    one(out, "towline_agent_sent_bytes_total", "counter",
        "Bytes sent by finished migrations, headers included.", t->bytes_sent);
    one(out, "towline_agent_sent_if_pages_bytes_total", "counter",
        "What the same rounds would have sent by 4 KiB pages.", t->bytes_if_pages);
    one(out, "towline_agent_sent_lines_total", "counter", "Lines sent by finished migrations.",
        t->lines_sent);
    one(out, "towline_agent_compare_only_lines_total", "counter",
        "Dirty lines that no store event had reported.", t->lines_compare_only);
    one(out, "towline_agent_memory_waits_total", "counter",
        "Waits of guests that ran here before their memory was here.", t->faults);
    one(out, "towline_agent_predictor_misses_total", "counter",
        "Demands of destinations for memory that followed a VM.", t->foresight.misses);
    one(out, "towline_agent_predictor_named_pages_total", "counter",
        "Pages that the predictor named.", t->foresight.named);
    one(out, "towline_agent_predictor_ahead_pages_total", "counter",
        "Pages sent before their turn.", t->foresight.ahead);
    one(out, "towline_agent_predictor_late_misses_total", "counter",
        "Misses of a page that had been named.", t->foresight.late);
    one(out, "towline_agent_predictor_watched_pages_total", "counter",
        "Pages sent ahead of which the touch was watched.", t->foresight.watched);
    one(out, "towline_agent_predictor_touched_pages_total", "counter",
        "Watched pages that were touched.", t->foresight.touched);
    family(out, "towline_agent_last_downtime_seconds", "gauge",
           "Downtime of the last completed outgoing migration.");
    fprintf(out, "towline_agent_last_downtime_seconds %.6f\n", (double)t->last_downtime_ns / 1e9);
    family(out, "towline_agent_longest_turn_seconds", "gauge",
           "Longest turn of the data thread since the start.");
    fprintf(out, "towline_agent_longest_turn_seconds %.6f\n", (double)t->longest_turn_ns / 1e9);
}

/* Only where verbs are in use. */
static void verbs_page(FILE *out, const struct tw_agent *a)
{
    struct tw_verbs_stats s;
    if (!a->paths.verbs)
        return;
    tw_fabric_verbs_stats(a->paths.verbs, &s);
    const struct {
        const char *name, *type, *help;
        uint64_t value;
    } rows[] = {
        {"doorbells_total", "counter", "Posts of chained work requests.", s.doorbells},
        {"requests_total", "counter", "Work requests in them.", s.requests},
        {"inline_requests_total", "counter", "Work requests with the bytes inside.",
         s.inline_requests},
        {"signalled_total", "counter", "Work requests that asked for a completion.", s.signalled},
        {"credit_writes_total", "counter", "Work requests that returned credit.", s.credit_writes},
        {"chunks_total", "counter", "Chunks sent, without those sent again.", s.chunks},
        {"chunk_bytes_total", "counter", "Payload of the chunks sent.", s.chunk_bytes},
        {"resent_total", "counter", "Messages sent again on new queue pairs.", s.resent},
        {"breaks_total", "counter", "Connections whose queue pairs were lost.", s.breaks},
        {"reconnects_total", "counter", "Connections brought back.", s.reconnects},
        {"nudges_total", "counter", "Empty writes to peers that did not answer.", s.nudges},
        {"refused_total", "counter", "Connections closed for what the peer sent.", s.refused},
        {"reads_total", "counter", "One-sided reads posted.", s.reads},
        {"registrations_total", "counter", "Memory registrations done.", s.registrations},
        {"registered_bytes", "gauge", "Memory registered now.", s.registered_bytes},
    };
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        char name[64];
        snprintf(name, sizeof name, "towline_agent_verbs_%s", rows[i].name);
        one(out, name, rows[i].type, rows[i].help, rows[i].value);
    }
    family(out, "towline_agent_verbs_flushes_total", "counter", "Posts by the reason they ended.");
    const struct {
        const char *reason;
        uint64_t value;
    } flushes[] = {{"empty", s.flush_empty},
                   {"full", s.flush_full},
                   {"window", s.flush_window},
                   {"queue", s.flush_queue}};
    for (unsigned i = 0; i < sizeof flushes / sizeof *flushes; i++)
        fprintf(out, "towline_agent_verbs_flushes_total{reason=\"%s\"} %llu\n", flushes[i].reason,
                (unsigned long long)flushes[i].value);
}

/* Of VMs that are being measured (meter_vms, or somebody looks). */
static void meters_page(FILE *out, const struct tw_agent *a)
{
    static const struct {
        const char *name, *help;
        size_t offset;
    } columns[] = {
        {"epochs_total", "Epochs of the VM's amplification meter.",
         offsetof(struct tw_figures, epochs)},
        {"lines_total", "Dirty lines of 64 bytes, summed over epochs.",
         offsetof(struct tw_figures, lines)},
        {"pages_total", "Pages of 4 KiB with a dirty line, summed over epochs.",
         offsetof(struct tw_figures, pages)},
        {"regions_total", "Regions of 2 MiB with a dirty line, summed over epochs.",
         offsetof(struct tw_figures, regions)},
    };
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
        char name[64];
        snprintf(name, sizeof name, "towline_agent_vm_meter_%s", columns[i].name);
        family(out, name, "counter", columns[i].help);
        for (const struct tw_vm *vm = a->vms; vm; vm = vm->next) {
            struct tw_guest_figures f;
            if (!vm->meter)
                continue;
            tw_guest_meter_get(vm->meter, &f);
            const char *at = (const char *)&f.total + columns[i].offset;
            fprintf(out, "%s{vm=\"%s\"} %llu\n", name, vm->record->spec->name,
                    (unsigned long long)*(const uint64_t *)(const void *)at);
        }
    }
}

/* Of VMs that leave: whose writers of hot lines are slowed because pre-copy would not converge. */
static void pacing_page(FILE *out, const struct tw_agent *a)
{
    static const struct {
        const char *name, *type, *help;
    } columns[] = {
        {"lines", "gauge", "Lines whose writers are slowed so that pre-copy converges."},
        {"delay_seconds", "gauge", "What making one of them dirty costs its writer now."},
        {"wait_seconds_total", "counter", "Time that the vCPU that waited longest has waited."},
    };
    for (unsigned i = 0; i < sizeof columns / sizeof *columns; i++) {
        char name[64];
        snprintf(name, sizeof name, "towline_agent_vm_paced_%s", columns[i].name);
        family(out, name, columns[i].type, columns[i].help);
        for (const struct tw_job *job = a->jobs; job; job = job->next) {
            struct tw_migration_progress p;
            if (!job->source)
                continue;
            tw_source_progress(job->source, &p);
            const double values[] = {(double)p.paced_lines, (double)p.pace_delay_ns / 1e9,
                                     (double)p.pace_wait_ns / 1e9};
            fprintf(out, "%s{vm=\"%s\"} %.9g\n", name, job->params.vm, values[i]);
        }
    }
}

static void vms_page(FILE *out, const struct tw_agent *a)
{
    family(out, "towline_agent_vm_running", "gauge", "1 when the VM runs here.");
    for (const struct tw_vm *vm = a->vms; vm; vm = vm->next)
        fprintf(out, "towline_agent_vm_running{vm=\"%s\"} %d\n", vm->record->spec->name,
                vm->qemu && tw_qemu_status_get(vm->qemu) == TW_QEMU_RUNNING);
    family(out, "towline_agent_vm_written_lines_total", "counter",
           "Line write-backs that the device has seen.");
    for (const struct tw_vm *vm = a->vms; vm; vm = vm->next) {
        struct tw_device_counters c = {0};
        const struct tw_host *host = vm->qemu ? tw_qemu_host(vm->qemu) : NULL;
        if (host && host->device)
            tw_device_counters_get(host->device, &c);
        fprintf(out, "towline_agent_vm_written_lines_total{vm=\"%s\"} %llu\n",
                vm->record->spec->name,
                (unsigned long long)(c.messages[TW_MEM_WR] + c.messages[TW_MEM_WR_KEEP]));
    }
    meters_page(out, a);
    pacing_page(out, a);
    family(out, "towline_agent_vm_link_overflows_total", "counter",
           "Store events that a full ring turned into line marks.");
    for (const struct tw_vm *vm = a->vms; vm; vm = vm->next) {
        struct tw_qemu_link_stats s = {0};
        if (vm->qemu)
            tw_qemu_link_stats_get(vm->qemu, &s);
        fprintf(out, "towline_agent_vm_link_overflows_total{vm=\"%s\"} %llu\n",
                vm->record->spec->name, (unsigned long long)s.ring_overflows);
    }
}

static enum tw_code metrics_on_data_thread(void *owner, void *arg, struct tw_error *err)
{
    const struct tw_agent *a = owner;
    FILE *out = arg;
    (void)err;
    family(out, "towline_agent_info", "gauge", "1, with the agent's name, version and fabric.");
    fprintf(out, "towline_agent_info{host=\"%s\",version=\"%s\",fabric=\"%s\"} 1\n", a->config.name,
            TOWLINE_VERSION, a->paths.verbs ? "verbs" : "tcp");
    one(out, "towline_agent_uptime_seconds", "gauge", "Seconds since the start.",
        (tw_now(&tw_monotonic) - a->started_ns) / TW_SEC);
    one(out, "towline_agent_memory_capacity_bytes", "gauge", "Memory that VMs may have.",
        a->config.memory_bytes);
    one(out, "towline_agent_memory_used_bytes", "gauge", "Memory of the VMs here.",
        tw_agent_memory_used(a));
    one(out, "towline_agent_vms", "gauge", "VM copies here, incoming ones included.", a->vm_count);
    if (a->tls) {
        family(out, "towline_certificate_expires_seconds", "gauge",
               "Until our certificate or its authority ends; negative afterwards.");
        fprintf(out, "towline_certificate_expires_seconds %lld\n",
                (long long)tw_tls_expires_s(a->tls));
    }
    totals_page(out, a);
    verbs_page(out, a);
    vms_page(out, a);
    return TW_OK;
}

static void metrics(void *ctx, FILE *out)
{
    struct tw_agent *agent = ctx;
    tw_mailbox_call(agent->mailbox, metrics_on_data_thread, out,
                    tw_after(tw_now(&tw_monotonic), PAGE_DEADLINE), NULL);
    tw_agent_tracking_metrics(agent->tracking, out);
}

static enum tw_code turn_on_data_thread(void *owner, void *arg, struct tw_error *err)
{
    (void)owner, (void)arg, (void)err;
    return TW_OK;
}

/* Ready: the data thread turns, and the controller (when there is one) has answered of late. */
static bool ready(void *ctx, FILE *out)
{
    struct tw_agent *agent = ctx;
    bool turning = tw_mailbox_call(agent->mailbox, turn_on_data_thread, NULL,
                                   tw_after(tw_now(&tw_monotonic), PAGE_DEADLINE), NULL) == TW_OK;
    uint64_t seen = atomic_load(&agent->controller_seen_ms);
    bool alone = !agent->config.controller[0];
    bool heard = alone || (seen && tw_wall_ms() - seen < 10000);
    fprintf(out, "data-thread %s\n", turning ? "ok" : "stuck");
    fprintf(out, "controller %s\n", alone ? "none configured" : heard ? "ok" : "not heard of");
    return turning && heard;
}

enum tw_code tw_agent_http(struct tw_agent *agent, struct tw_http_server **server,
                           struct tw_error *err)
{
    const struct tw_http_pages pages = {.metrics = metrics, .ready = ready, .ctx = agent};
    *server = NULL;
    if (!agent->config.http[0])
        return TW_OK;
    return tw_http_server_open(agent->config.http, &pages, server, err);
}
