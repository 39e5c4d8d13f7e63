#include "controller/metrics.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void tw_call_count(struct tw_call_counts *counts, const char *method, enum tw_code code)
{
    unsigned c = (unsigned)code < TW_CODES ? (unsigned)code : (unsigned)TW_UNKNOWN;
    for (unsigned i = 0; i < TW_METHODS_MAX && counts->methods[i].method; i++) {
        if (strcmp(counts->methods[i].method, method) == 0) {
            atomic_fetch_add(&counts->methods[i].calls[c], 1);
            return;
        }
    }
}

static void head(FILE *out, const char *name, const char *type, const char *help)
{
    fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void hosts_print(const struct tw_metrics_sources *s, FILE *out)
{
    struct tw_host_view *hosts;
    size_t count;
    unsigned alive = 0;
    if (tw_catalogue_hosts(s->catalogue, &hosts, &count, NULL) != TW_OK)
        return;
    for (size_t i = 0; i < count; i++)
        alive += hosts[i].record.alive;
    head(out, "towline_hosts", "gauge", "Hosts by state.");
    fprintf(out, "towline_hosts{state=\"alive\"} %u\ntowline_hosts{state=\"dead\"} %zu\n", alive,
            count - alive);
    head(out, "towline_host_memory_free_bytes", "gauge",
         "Memory that a host can still give to VMs, promises deducted.");
    for (size_t i = 0; i < count; i++)
        fprintf(out, "towline_host_memory_free_bytes{host=\"%s\"} %" PRIu64 "\n",
                hosts[i].record.name, hosts[i].free_bytes);
    free(hosts);
}

struct vm_tally {
    uint64_t states[TW_VM_GIVEN_UP + 1];
};

static void tally_vm(void *ctx, const struct tw_vm_record *vm)
{
    struct vm_tally *tally = ctx;
    if (!tw_vm_forgotten(vm) && vm->state <= TW_VM_GIVEN_UP)
        tally->states[vm->state]++;
}

static void store_print(const struct tw_metrics_sources *s, FILE *out)
{
    static const char *const states[] = {"", "starting", "running", "paused", "stopped", "failed"};
    struct vm_tally tally = {{0}};
    uint64_t oldest = 0, newest = 0;
    if (tw_store_begin(s->store, TW_STORE_READ, NULL) != TW_OK)
        return;
    enum tw_code code = tw_store_vms_each(s->store, "", tally_vm, &tally, NULL);
    if (code == TW_OK)
        code = tw_store_events_bounds(s->store, &oldest, &newest, NULL);
    if (tw_store_end(s->store, code, NULL) != TW_OK)
        return;
    head(out, "towline_vms", "gauge", "VMs by recorded state.");
    for (unsigned i = TW_VM_STARTING; i <= TW_VM_FAILED; i++)
        fprintf(out, "towline_vms{state=\"%s\"} %" PRIu64 "\n", states[i], tally.states[i]);
    head(out, "towline_event_revision", "counter", "Revision of the newest event.");
    fprintf(out, "towline_event_revision %" PRIu64 "\n", newest);
}

/* `unit` divides the bounds into seconds. */
static void histogram_print(FILE *out, const char *name, const uint64_t *bounds,
                            const uint64_t *counts, unsigned buckets, double unit, double sum,
                            uint64_t count)
{
    uint64_t so_far = 0;
    for (unsigned i = 0; i < buckets; i++) {
        so_far += counts[i];
        if (bounds[i] == UINT64_MAX)
            fprintf(out, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", name, so_far);
        else
            fprintf(out, "%s_bucket{le=\"%g\"} %" PRIu64 "\n", name, (double)bounds[i] / unit,
                    so_far);
    }
    fprintf(out, "%s_sum %g\n%s_count %" PRIu64 "\n", name, sum, name, count);
}

static void migrations_print(const struct tw_metrics_sources *s, FILE *out)
{
    struct tw_migration_figures f;
    tw_migrations_figures(s->migrations, &f);
    head(out, "towline_migrations_active", "gauge", "Migrations that have not ended, by state.");
    for (unsigned i = 0; i < TW_MIGRATION_COMPLETED; i++)
        fprintf(out, "towline_migrations_active{state=\"%s\"} %" PRIu64 "\n",
                tw_migration_table.states[i].name, f.active[i]);
    head(out, "towline_migrations_total", "counter", "Migrations that ended, by outcome.");
    for (unsigned i = TW_MIGRATION_COMPLETED; i < TW_MIGRATION_STATES; i++)
        fprintf(out, "towline_migrations_total{outcome=\"%s\"} %" PRIu64 "\n",
                tw_migration_table.states[i].name, f.ended[i]);
    head(out, "towline_migration_bytes_total", "counter", "Bytes sent by ended migrations.");
    fprintf(out, "towline_migration_bytes_total %" PRIu64 "\n", f.bytes_sent);
    head(out, "towline_migration_bytes_if_pages_total", "counter",
         "Bytes that the same migrations would have sent by pages.");
    fprintf(out, "towline_migration_bytes_if_pages_total %" PRIu64 "\n", f.bytes_if_pages);
    head(out, "towline_migration_downtime_seconds", "histogram",
         "Time from stop to resume of completed migrations.");
    histogram_print(out, "towline_migration_downtime_seconds", tw_downtime_bucket_ms, f.downtime,
                    TW_DOWNTIME_BUCKETS, 1e3, (double)f.downtime_us / 1e6, f.downtime_count);
}

static void writes_print(const struct tw_metrics_sources *s, FILE *out)
{
    struct tw_store_figures f;
    tw_store_figures(s->store, &f);
    head(out, "towline_store_write_seconds", "histogram", "Duration of durable transactions.");
    histogram_print(out, "towline_store_write_seconds", tw_store_bucket_us, f.durable,
                    TW_STORE_BUCKETS, 1e6, (double)f.durable_us / 1e6, f.durable_count);
    head(out, "towline_store_relaxed_writes_total", "counter", "Transactions without a disk sync.");
    fprintf(out, "towline_store_relaxed_writes_total %" PRIu64 "\n", f.relaxed_count);
    head(out, "towline_store_failures_total", "counter", "Transactions that the disk refused.");
    fprintf(out, "towline_store_failures_total %" PRIu64 "\n", f.failed_count);
}

static void calls_print(const struct tw_call_counts *counts, FILE *out)
{
    head(out, "towline_rpc_calls_total", "counter", "RPC calls served, by method and code.");
    for (unsigned i = 0; i < TW_METHODS_MAX && counts->methods[i].method; i++)
        for (unsigned c = 0; c < TW_CODES; c++) {
            uint64_t n = atomic_load(&counts->methods[i].calls[c]);
            if (n)
                fprintf(out, "towline_rpc_calls_total{method=\"%s\",code=\"%s\"} %" PRIu64 "\n",
                        counts->methods[i].method, tw_code_name((enum tw_code)c), n);
        }
}

void tw_metrics_print(const struct tw_metrics_sources *s, FILE *out)
{
    head(out, "towline_controller_info", "gauge", "Version of this controller.");
    fprintf(out, "towline_controller_info{version=\"%s\"} 1\n", TOWLINE_VERSION);
    head(out, "towline_controller_start_time_seconds", "gauge", "When it was started.");
    fprintf(out, "towline_controller_start_time_seconds %.3f\n",
            (double)s->started_unix_ms / 1000.0);
    if (s->tls) {
        head(out, "towline_certificate_expires_seconds", "gauge",
             "Until our certificate or its authority ends; negative afterwards.");
        fprintf(out, "towline_certificate_expires_seconds %" PRId64 "\n", tw_tls_expires_s(s->tls));
    }
    hosts_print(s, out);
    store_print(s, out);
    migrations_print(s, out);
    writes_print(s, out);
    calls_print(s->counts, out);
}
