#include "services/migration/side.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_LIMIT_NS (10 * TW_SEC) /* at least */

enum tw_code tw_host_call_begin(struct tw_host_call *call, enum tw_host_operation op,
                                const struct tw_host_state *state, uint64_t now_ns,
                                struct tw_error *err)
{
    enum tw_code code = call->host->ops->begin(call->host->ctx, op, state,
                                               tw_after(now_ns, TW_HOST_CALL_LIMIT_NS), err);
    call->busy = code == TW_OK;
    return code;
}

bool tw_host_call_poll(struct tw_host_call *call, struct tw_host_state *state, enum tw_code *code,
                       struct tw_error *err)
{
    struct tw_host_state dropped = {0};
    if (!call->host->ops->poll(call->host->ctx, state ? state : &dropped, code, err))
        return false;
    free(dropped.data);
    call->busy = false;
    return true;
}

bool tw_host_alive(const struct tw_host *host)
{
    return host->ops->alive(host->ctx);
}

uint64_t tw_connect_deadline(const struct tw_fabric *fabric, uint64_t from_ns)
{
    const uint64_t patience_ns = 2 * tw_fabric_patience(fabric);
    return tw_after(from_ns, patience_ns > CONNECT_LIMIT_NS ? patience_ns : CONNECT_LIMIT_NS);
}

void tw_farewell_say(struct tw_farewell *f, enum tw_control_kind kind,
                     const union tw_control *message, uint64_t now_ns)
{
    *f = (struct tw_farewell){.due = true, .until = tw_after(now_ns, TW_LINGER_NS), .kind = kind};
    f->message = *message;
}

uint64_t tw_farewell_step(struct tw_farewell *f, struct tw_conn **conn, uint64_t now_ns)
{
    if (!*conn)
        return TW_NEVER;
    if (f->due) {
        enum tw_code code = tw_control_send(*conn, f->kind, &f->message, NULL);
        f->due = code == TW_RESOURCE_EXHAUSTED;
    }
    bool arrived = !f->due && tw_conn_drained(*conn, TW_LANE_URGENT);
    if (!arrived && now_ns < f->until)
        return tw_after(now_ns, TW_BLOCKED_NS);
    tw_conn_close(*conn);
    *conn = NULL;
    return TW_NEVER;
}

const char *tw_migration_where(const struct tw_migration_params *params, char out[TW_WHERE_SIZE])
{
    snprintf(out, TW_WHERE_SIZE, "migration %s", params->id);
    return out;
}

enum tw_code tw_migration_params_check(const struct tw_migration_params *params,
                                       const struct tw_host *host, struct tw_error *err)
{
    char given[32];
    size_t length = strnlen(params->id, TW_ID_SIZE);
    if (length == 0 || length > TW_ID_SIZE - 12) {
        snprintf(given, sizeof given, "%zu bytes", length);
        return tw_fail(err, TW_INVALID_ARGUMENT, "migration", "an id of 1..52 bytes", given,
                       "bad migration id");
    }
    if (host->memory_bytes == 0 || host->memory_bytes % TW_PAGE_SIZE != 0) {
        snprintf(given, sizeof given, "%" PRIu64 " bytes", host->memory_bytes);
        return tw_fail(err, TW_INVALID_ARGUMENT, params->id, "whole pages", given,
                       "bad size of memory");
    }
    return TW_OK;
}

void tw_migration_on_up(struct tw_migration_end *end, struct tw_conn *conn)
{
    (void)conn;
    if (end->up)
        end->up(end->side);
}

enum tw_code tw_migration_on_chunk(struct tw_migration_end *end, struct tw_conn *conn,
                                   enum tw_lane lane, const struct tw_chunk_header *header,
                                   const uint8_t *payload, struct tw_error *err)
{
    struct tw_error unheard;
    (void)conn;
    return end->chunk(end->side, lane, header, payload, err ? err : &unheard);
}

void tw_migration_on_down(struct tw_migration_end *end, struct tw_conn *conn,
                          const struct tw_error *why)
{
    (void)conn;
    end->down(end->side, why);
}
