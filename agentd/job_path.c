/* Between jobs and fabric: who connects belongs to which job, and a destination that has lost its
 * source connects to it again. */
#include "agentd/job_impl.h"

#include "base/log.h"

#include <stdio.h>
#include <string.h>

void tw_job_path_set(struct tw_job *job, const struct tw_path *path)
{
    snprintf(job->path, sizeof job->path, "%s", path->fabric);
    snprintf(job->path_reason, sizeof job->path_reason, "%s", path->reason);
}

enum tw_code tw_job_dial(void *ctx, const struct tw_hello *hello, uint64_t deadline_ns,
                         void *conn_ctx, struct tw_conn **conn, struct tw_error *err)
{
    struct tw_job *job = ctx;
    const Towline__V1__VmRecord *r = job->vm->record;
    struct tw_fabric *fabric;
    const char *address;
    if (!r->source_fabric[0] && !r->source_verbs[0])
        return tw_fail(err, TW_UNAVAILABLE, job->params.id, "an address of the source", NULL,
                       "it is not known where %s is", job->peer);
    tw_job_path_set(job, tw_paths_choose(&job->agent->paths, job->peer, job->params.id,
                                         r->source_fabric, r->source_verbs, &fabric, &address));
    return tw_fabric_connect(fabric, address, hello, deadline_ns, conn_ctx, conn, err);
}

enum tw_code tw_job_dial_mirror(void *ctx, const struct tw_hello *hello, uint64_t deadline_ns,
                                void *conn_ctx, struct tw_conn **conn, struct tw_error *err)
{
    struct tw_job *job = ctx;
    const Towline__V1__VmRecord *r = job->vm->record;
    struct tw_hello mine = *hello;
    struct tw_fabric *fabric;
    const char *address;
    if (r->mirror_token.len != TW_OWNER_SIZE)
        return tw_fail(err, TW_UNAVAILABLE, job->params.id, "a mirror's token", NULL,
                       "it is not known how %s is reached", r->mirror_host);
    memcpy(mine.owner, r->mirror_token.data, TW_OWNER_SIZE);
    tw_job_path_set(job, tw_paths_choose(&job->agent->paths, r->mirror_host, job->params.id,
                                         r->mirror_fabric, r->mirror_verbs, &fabric, &address));
    return tw_fabric_connect(fabric, address, &mine, deadline_ns, conn_ctx, conn, err);
}

enum tw_code tw_job_mirror_to(struct tw_job *job, const Towline__V1__MirrorTarget *mirror,
                              struct tw_error *err)
{
    struct tw_fabric *fabric;
    const char *address;
    if (mirror->token.len != TW_OWNER_SIZE)
        return tw_fail(err, TW_INVALID_ARGUMENT, job->params.id, "a mirror's token of 16 bytes",
                       NULL, "the token has %zu bytes", mirror->token.len);
    tw_paths_choose(&job->agent->paths, mirror->host, job->params.id, mirror->fabric_address,
                    mirror->verbs_address, &fabric, &address);
    return tw_source_mirror_to(job->source, fabric, address, mirror->token.data, err);
}

enum tw_code tw_job_reconnect(struct tw_job *job, const Towline__V1__AgentReconnectRequest *request,
                              struct tw_error *err)
{
    Towline__V1__VmRecord *r = job->vm->record;
    if (!job->destination)
        return tw_fail(err, TW_FAILED_PRECONDITION, job->params.id, "the destination", "the source",
                       "the source does not connect again");
    bool moved = request->source_fabric_address[0] &&
                 (strcmp(r->source_fabric, request->source_fabric_address) != 0 ||
                  strcmp(r->source_verbs, request->source_verbs_address) != 0);
    if (moved) {
        tw_job_set_text(&r->source_fabric, request->source_fabric_address);
        tw_job_set_text(&r->source_verbs, request->source_verbs_address);
        enum tw_code code = tw_vm_save(job->vm, err);
        if (code)
            return code;
    }
    if (request->from_mirror)
        return tw_destination_from_mirror(job->destination, err);
    return request->again ? tw_destination_reconnect(job->destination, err) : TW_OK;
}

static enum tw_code accept_at_source(struct tw_job *job, struct tw_conn *conn,
                                     const struct tw_hello *hello, void **conn_ctx,
                                     struct tw_error *err)
{
    enum tw_code code = tw_source_accept(job->source, conn, hello, err);
    *conn_ctx = tw_source_end(job->source);
    if (!code)
        tw_job_path_set(job, tw_paths_came(&job->agent->paths, job->peer, job->params.id, conn));
    return code;
}

static enum tw_code on_accept(void *ctx, struct tw_conn *conn, const struct tw_hello *hello,
                              void **conn_ctx, struct tw_error *err)
{
    struct tw_agent *agent = ctx;
    for (struct tw_job *job = agent->jobs; job; job = job->next) {
        if (memcmp(job->params.token, hello->owner, TW_OWNER_SIZE) != 0)
            continue;
        if (job->source)
            return accept_at_source(job, conn, hello, conn_ctx, err);
        enum tw_code code = tw_destination_accept(job->destination, conn, hello, err);
        *conn_ctx = tw_destination_end(job->destination);
        if (!code)
            tw_job_path_set(job, tw_paths_came(&agent->paths, job->peer, job->params.id, conn));
        return code;
    }
    struct tw_mirror_job *mirror = tw_mirrors_of_token(agent, hello->owner);
    if (mirror)
        return tw_mirrors_accept(mirror, conn, hello, conn_ctx, err);
    return tw_fail(err, TW_PERMISSION_DENIED, agent->config.name, "the token of a migration here",
                   "another", "connection from %s refused", hello->name);
}

static void on_up(void *ctx, struct tw_conn *conn)
{
    tw_migration_on_up(ctx, conn);
}

static enum tw_code on_chunk(void *ctx, struct tw_conn *conn, enum tw_lane lane,
                             const struct tw_chunk_header *header, const uint8_t *payload,
                             struct tw_error *err)
{
    return tw_migration_on_chunk(ctx, conn, lane, header, payload, err);
}

/* Nothing is read one-sidedly: the source has to know what it has sent. A completion here belongs
 * to nobody. */
static void on_read(void *ctx, struct tw_conn *conn, uint64_t cookie, enum tw_code code)
{
    (void)ctx, (void)conn;
    tw_log(TW_LOG_WARN, "job", "unexpected read completion", "cookie=%llu code=%s",
           (unsigned long long)cookie, tw_code_name(code));
}

static void on_down(void *ctx, struct tw_conn *conn, const struct tw_error *why)
{
    tw_migration_on_down(ctx, conn, why);
}

const struct tw_fabric_events tw_job_fabric_events = {
    .on_accept = on_accept,
    .on_up = on_up,
    .on_chunk = on_chunk,
    .on_read = on_read,
    .on_down = on_down,
};
