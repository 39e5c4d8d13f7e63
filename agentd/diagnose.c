/* The host's probes: asked for by RPC, and run once at the start for the log. They read files and
 * start QEMU, so they stay off the data thread; of that they only ask how fast it answers. */
#include "agentd/diagnose.h"

#include "agentd/agent.h"
#include "base/log.h"
#include "base/units.h"
#include "fabric/verbs_probe.h"
#include "hosts/probe/probe.h"
#include "pki/end.h"
#include "pki/revoke.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DATA_THREAD_NS   (2 * TW_SEC)
#define DATA_THREAD_LATE (100 * TW_MS)

struct tw_diagnose {
    struct tw_agent *agent;
    pthread_mutex_t lock; /* one run at a time: each starts a QEMU */
    pthread_t thread;
    bool started;
};

static bool verbs_usable(char *why, size_t size)
{
    struct tw_verbs_probe *probe = malloc(sizeof *probe);
    bool usable = probe && tw_fabric_verbs_probe(probe);
    snprintf(why, size, "%s", probe ? probe->why : strerror(ENOMEM));
    free(probe);
    return usable;
}

static enum tw_code memory_used(void *owner, void *arg, struct tw_error *err)
{
    (void)err;
    *(uint64_t *)arg = tw_agent_memory_used(owner);
    return TW_OK;
}

/* Everything that the agent does with lines waits for this one thread. */
static void ask_data_thread(struct tw_agent *agent, uint64_t *used, struct tw_probe_result *result)
{
    struct tw_error err = {0};
    char text[600], took[TW_SIZE_TEXT];
    uint64_t begin_ns = tw_now(&tw_monotonic);
    enum tw_code code = tw_mailbox_call(agent->mailbox, memory_used, used,
                                        tw_after(begin_ns, DATA_THREAD_NS), &err);
    uint64_t took_ns = tw_now(&tw_monotonic) - begin_ns;
    bool late = took_ns >= DATA_THREAD_LATE;
    *result = (struct tw_probe_result){.name = "data-thread",
                                       .verdict = code   ? TW_PROBE_FAIL
                                                  : late ? TW_PROBE_WARN
                                                         : TW_PROBE_OK,
                                       .needed = "an answer inside 100 ms"};
    if (code)
        snprintf(result->found, sizeof result->found, "%s", tw_error_text(&err, text, sizeof text));
    else
        snprintf(result->found, sizeof result->found, "answered in %s",
                 tw_duration_format(took_ns, took));
    if (code || late)
        snprintf(result->mend, sizeof result->mend,
                 "leave a core to the agent: taskset or cpusets for the guests; see the metric "
                 "towline_agent_longest_turn_seconds");
}

static size_t run_probes(struct tw_agent *agent, struct tw_probe_result results[TW_PROBES_MAX + 1])
{
    struct tw_probe_settings settings = {.run_dir = agent->config.run_dir,
                                         .rdma_required =
                                             agent->config.fabric == TW_AGENT_FABRIC_VERBS,
                                         .state_dir = agent->config.state_dir,
                                         .qemu = agent->config.qemu,
                                         .plugin = agent->config.plugin,
                                         .certificate = agent->config.tls.certificate,
                                         .certificate_end = tw_pki_end,
                                         .revoked = agent->config.tls.crl,
                                         .certificate_revoked = tw_pki_revoked,
                                         .verbs_usable = verbs_usable,
                                         .memory_bytes = agent->config.memory_bytes};
    struct tw_probe_system machine = tw_probe_machine;
    struct tw_probe_result data_thread;
    machine.ctx = &agent->stopping;
    ask_data_thread(agent, &settings.memory_taken_bytes, &data_thread);
    size_t count = tw_probe_all(&settings, &machine, results);
    results[count++] = data_thread;
    return count;
}

/* ---- By RPC -----------------------------------------------------------------------------------
 */

static Towline__V1__ProbeResult *to_proto(const struct tw_probe_result *result)
{
    static const Towline__V1__ProbeVerdict verdicts[] = {
        [TW_PROBE_SKIPPED] = TOWLINE__V1__PROBE_VERDICT__PROBE_VERDICT_SKIPPED,
        [TW_PROBE_OK] = TOWLINE__V1__PROBE_VERDICT__PROBE_VERDICT_OK,
        [TW_PROBE_WARN] = TOWLINE__V1__PROBE_VERDICT__PROBE_VERDICT_WARN,
        [TW_PROBE_FAIL] = TOWLINE__V1__PROBE_VERDICT__PROBE_VERDICT_FAIL,
    };
    Towline__V1__ProbeResult *p = malloc(sizeof *p);
    if (!p)
        return NULL;
    towline__v1__probe_result__init(p);
    p->name = strdup(result->name);
    p->verdict = verdicts[result->verdict];
    p->found = strdup(result->found);
    p->needed = strdup(result->needed);
    p->mend = strdup(result->mend);
    return p;
}

static struct timespec until(uint64_t deadline_ns)
{
    return (struct timespec){.tv_sec = (time_t)(deadline_ns / TW_SEC),
                             .tv_nsec = (long)(deadline_ns % TW_SEC)};
}

enum tw_code tw_diagnose_call(struct tw_diagnose *d, uint64_t deadline_ns,
                              Towline__V1__DiagnoseResponse *response, struct tw_error *err)
{
    struct tw_probe_result results[TW_PROBES_MAX + 1];
    const struct timespec end = until(deadline_ns);
    response->received_unix_us = tw_wall_us();
    if (pthread_mutex_clocklock(&d->lock, CLOCK_MONOTONIC, &end) != 0)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, d->agent->config.name, NULL, NULL,
                       "the probes are running already; ask again later");
    size_t count = run_probes(d->agent, results);
    pthread_mutex_unlock(&d->lock);
    response->results = calloc(count, sizeof *response->results);
    for (size_t i = 0; response->results && i < count; i++)
        if ((response->results[response->n_results] = to_proto(&results[i])))
            response->n_results++;
    if (response->n_results < count)
        return tw_fail_errno(err, ENOMEM, d->agent->config.name, "no memory for the answer");
    response->answered_unix_us = tw_wall_us();
    return TW_OK;
}

/* ---- For the log ------------------------------------------------------------------------------
 */

/* A value of the log stands in quotes. */
static const char *unquoted(char *text)
{
    for (char *p = text; *p; p++)
        if (*p == '"' || (unsigned char)*p < ' ')
            *p = '\'';
    return text;
}

static void *log_all(void *arg)
{
    struct tw_diagnose *d = arg;
    struct tw_probe_result results[TW_PROBES_MAX + 1];
    pthread_mutex_lock(&d->lock);
    size_t count = run_probes(d->agent, results);
    pthread_mutex_unlock(&d->lock);
    for (size_t i = 0; i < count; i++) {
        struct tw_probe_result *r = &results[i];
        if (r->verdict >= TW_PROBE_WARN)
            tw_log(TW_LOG_WARN, "doctor", r->verdict == TW_PROBE_FAIL ? "fails" : "may fail",
                   "probe=%s found=\"%s\" needed=\"%s\" mend=\"%s\"", r->name, unquoted(r->found),
                   unquoted(r->needed), unquoted(r->mend));
    }
    return NULL;
}

struct tw_diagnose *tw_diagnose_open(struct tw_agent *agent)
{
    struct tw_diagnose *d = calloc(1, sizeof *d);
    if (!d)
        return NULL;
    d->agent = agent;
    pthread_mutex_init(&d->lock, NULL);
    return d;
}

void tw_diagnose_log(struct tw_diagnose *d)
{
    int failed = pthread_create(&d->thread, NULL, log_all, d);
    d->started = failed == 0;
    if (failed)
        tw_log(TW_LOG_WARN, "doctor", "the host's probes cannot run", "what=\"%s\"",
               strerror(failed));
}

void tw_diagnose_close(struct tw_diagnose *d)
{
    if (!d)
        return;
    if (d->started)
        pthread_join(d->thread, NULL);
    pthread_mutex_destroy(&d->lock);
    free(d);
}
