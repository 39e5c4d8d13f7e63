/* What this agent keeps for migrations between others (services/migration/mirror.h): memory that is
 * reserved, filled by a source and perhaps asked for by a destination, each with the token that the
 * controller has given to both. It is in no VM's record: with this process it is gone. */
#include "agentd/agent.h"

#include "base/log.h"
#include "base/units.h"
#include "rpc/rpc.h"
#include "services/migration/mirror.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define MIRRORS_MAX 64u
#define REMEMBER_NS (600 * TW_SEC) /* that one has ended, for a controller that does not ask */
#define TIMEOUT_MS  30000u

struct tw_mirror_job {
    struct tw_agent *agent;
    struct tw_mirror *mirror;
    struct tw_migration_params params;
    uint64_t ended_ns; /* 0 = not yet */
    bool counted;
    struct tw_mirror_job *next;
};

static struct tw_mirror_job *find(struct tw_agent *agent, const char *migration)
{
    for (struct tw_mirror_job *j = agent->mirrors; j; j = j->next)
        if (strcmp(j->params.id, migration) == 0)
            return j;
    return NULL;
}

/* All of the VM until it is known how much of it follows; then what is held. */
static uint64_t reserved_of(const struct tw_mirror_job *j)
{
    struct tw_mirror_progress p;
    tw_mirror_progress(j->mirror, &p);
    if (tw_mirror_done(j->mirror) || j->ended_ns)
        return 0;
    return p.complete ? p.bytes_held : p.memory_bytes;
}

uint64_t tw_mirrors_reserved(const struct tw_agent *agent)
{
    uint64_t bytes = 0;
    for (const struct tw_mirror_job *j = agent->mirrors; j; j = j->next)
        bytes += reserved_of(j);
    return bytes;
}

static void trace(void *ctx, const struct tw_machine *machine, unsigned from, unsigned to,
                  const char *why)
{
    const struct tw_mirror_job *j = ctx;
    atomic_store(&j->agent->changed, true);
    tw_log(TW_LOG_INFO, machine->table->name, "state",
           "migration=%s vm=%s from=%s to=%s why=\"%s\"", j->params.id, j->params.vm,
           machine->table->states[from].name, machine->table->states[to].name, why);
}

/* ---- Begin and end ----------------------------------------------------------------------------
 */

static enum tw_code check(const struct tw_agent *agent, const Towline__V1__HoldMirrorRequest *r,
                          struct tw_error *err)
{
    char need[TW_SIZE_TEXT], has[TW_SIZE_TEXT], expected[64], given[64];
    const uint64_t used = tw_agent_memory_used(agent), capacity = agent->config.memory_bytes;
    const uint64_t left = capacity > used ? capacity - used : 0;
    unsigned count = 0;
    if (!tw_record_name_ok(r->migration) || !tw_record_name_ok(r->vm))
        return tw_fail(err, TW_INVALID_ARGUMENT, "mirror",
                       "lower-case letters, digits and '-', at most 63", r->migration,
                       "not a usable name");
    for (const struct tw_mirror_job *j = agent->mirrors; j; j = j->next)
        count++;
    if (count >= MIRRORS_MAX)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, agent->config.name, "fewer than 64 mirrors",
                       NULL, "no room for a mirror of vm %s", r->vm);
    snprintf(expected, sizeof expected, "%s free", tw_size_format(r->memory_bytes, need));
    snprintf(given, sizeof given, "%s free", tw_size_format(left, has));
    if (r->memory_bytes > left)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, agent->config.name, expected, given,
                       "not enough memory for a mirror of vm %s", r->vm);
    return TW_OK;
}

static void drop(struct tw_mirror_job *job)
{
    for (struct tw_mirror_job **p = &job->agent->mirrors; *p; p = &(*p)->next) {
        if (*p == job) {
            *p = job->next;
            break;
        }
    }
    atomic_store(&job->agent->changed, true);
    tw_mirror_free(job->mirror);
    free(job);
}

static enum tw_code begin(struct tw_agent *agent, const Towline__V1__HoldMirrorRequest *r,
                          uint64_t wait_ns, struct tw_mirror_job **out, struct tw_error *err)
{
    enum tw_code code = check(agent, r, err);
    if (code)
        return code;
    struct tw_mirror_job *j = calloc(1, sizeof *j);
    if (!j || getrandom(j->params.token, TW_OWNER_SIZE, 0) != (ssize_t)TW_OWNER_SIZE) {
        free(j);
        return tw_fail_errno(err, ENOMEM, r->migration, "cannot begin");
    }
    j->agent = agent;
    snprintf(j->params.id, sizeof j->params.id, "%s", r->migration);
    snprintf(j->params.vm, sizeof j->params.vm, "%s", r->vm);
    j->params.epoch = r->epoch;
    tw_limits_from_proto(r->limits, agent->config.predictor, &j->params.limits);
    const struct tw_migration_env env = {
        .clock = &tw_monotonic, .fabric = agent->paths.tcp, .trace = trace, .ctx = j};
    code = tw_mirror_start(&env, &j->params, r->memory_bytes, wait_ns, &j->mirror, err);
    if (code) {
        free(j);
        return code;
    }
    j->next = agent->mirrors;
    agent->mirrors = j;
    *out = j;
    return TW_OK;
}

enum tw_code tw_mirrors_hold(struct tw_agent *agent, const Towline__V1__HoldMirrorRequest *r,
                             Towline__V1__MirrorTarget *target, struct tw_error *err)
{
    struct tw_mirror_job *job = find(agent, r->migration);
    const uint64_t wait_ns = (r->timeout_ms ? r->timeout_ms : TIMEOUT_MS) * TW_MS;
    enum tw_code code = TW_OK;
    if (job && job->ended_ns)
        return tw_fail(err, TW_FAILED_PRECONDITION, r->migration, "a mirror that has not ended",
                       NULL, "the mirror has ended on %s", agent->config.name);
    if (job)
        tw_mirror_wait_anew(job->mirror, wait_ns);
    else
        code = begin(agent, r, wait_ns, &job, err);
    if (code)
        return code;
    target->token.data = malloc(TW_OWNER_SIZE);
    if (!target->token.data)
        return tw_fail_errno(err, ENOMEM, r->migration, "cannot begin");
    memcpy(target->token.data, job->params.token, TW_OWNER_SIZE);
    target->token.len = TW_OWNER_SIZE;
    target->host = strdup(agent->config.name);
    target->fabric_address = strdup(tw_fabric_address(agent->paths.tcp));
    target->verbs_address = strdup(tw_paths_verbs_address(&agent->paths));
    return TW_OK;
}

void tw_mirrors_release(struct tw_agent *agent, const char *migration)
{
    struct tw_mirror_job *job = find(agent, migration);
    if (!job)
        return;
    tw_mirror_release(job->mirror, "told by the controller");
    drop(job);
}

void tw_mirrors_free(struct tw_agent *agent)
{
    while (agent->mirrors)
        drop(agent->mirrors);
}

/* ---- At work -----------------------------------------------------------------------------------
 */

struct tw_mirror_job *tw_mirrors_of_token(struct tw_agent *agent,
                                          const uint8_t token[TW_OWNER_SIZE])
{
    for (struct tw_mirror_job *j = agent->mirrors; j; j = j->next)
        if (memcmp(j->params.token, token, TW_OWNER_SIZE) == 0)
            return j;
    return NULL;
}

enum tw_code tw_mirrors_accept(struct tw_mirror_job *job, struct tw_conn *conn,
                               const struct tw_hello *hello, void **conn_ctx, struct tw_error *err)
{
    struct tw_migration_end *end = NULL;
    enum tw_code code = tw_mirror_accept(job->mirror, conn, hello, &end, err);
    *conn_ctx = end;
    if (!code)
        tw_paths_came(&job->agent->paths, hello->name, job->params.id, conn);
    return code;
}

static void count(struct tw_mirror_job *j)
{
    struct tw_mirror_progress p;
    tw_mirror_progress(j->mirror, &p);
    if (p.complete && !j->counted) {
        j->agent->totals.mirrors_held++;
        j->counted = true;
    }
}

uint64_t tw_mirrors_step(struct tw_agent *agent)
{
    const uint64_t now_ns = tw_now(&tw_monotonic);
    uint64_t next = TW_NEVER;
    for (struct tw_mirror_job *j = agent->mirrors, *after; j; j = after) {
        after = j->next;
        uint64_t due = tw_mirror_step(j->mirror);
        count(j);
        if (tw_mirror_done(j->mirror) && !j->ended_ns)
            j->ended_ns = now_ns;
        if (j->ended_ns && now_ns >= tw_after(j->ended_ns, REMEMBER_NS))
            drop(j);
        else if (due < next)
            next = due;
    }
    return next;
}

void tw_mirrors_get(struct tw_agent *agent, const char *migration,
                    Towline__V1__GetMirrorResponse *out)
{
    const struct tw_mirror_job *j = find(agent, migration);
    struct tw_mirror_progress p;
    if (!j)
        return;
    tw_mirror_progress(j->mirror, &p);
    out->known = true;
    out->phase = strdup(p.phase);
    out->complete = p.complete;
    out->lines_named = p.lines_named;
    out->lines_held = p.lines_held;
    out->bytes_held = p.bytes_held;
    out->bytes_reserved = reserved_of(j);
    out->serving = p.serving;
    out->lines_served = p.lines_served;
    out->error = tw_error_to_proto(tw_mirror_error(j->mirror));
}
