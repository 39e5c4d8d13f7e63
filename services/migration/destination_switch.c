#include "services/migration/destination.h"

#include <stdlib.h>

#define IDLE_PAGES     256u  /* read again in a step while lines come in: 0.1 ms */
#define STAGE_AFTER_NS TW_MS /* into the load: the machine then has its state to work on */
#define FINAL_PAGES    4096u /* ... when nothing else is left to do */

/* ---- Receiving ------------------------------------------------------------------------------- */

/* The machine is readied for its state while the lines come in. True when the host is free. */
static bool machine_is_ready(struct tw_destination *d, uint64_t now_ns)
{
    struct tw_error err = {0};
    enum tw_code code = TW_OK;
    if (!d->readied) {
        d->readied = true;
        code = tw_host_call_begin(&d->call, TW_HOST_AWAIT_STATE, NULL, now_ns, &err);
    } else if (d->call.busy && !tw_host_call_poll(&d->call, NULL, &code, &err)) {
        return false;
    }
    if (code != TW_OK)
        tw_destination_give_back(d, &err);
    return code == TW_OK && !d->call.busy;
}

uint64_t tw_destination_step_receiving(struct tw_destination *d, uint64_t now_ns)
{
    struct tw_error err;
    if (!machine_is_ready(d, now_ns))
        return d->machine.state == TW_DESTINATION_RECEIVING ? tw_after(now_ns, TW_POLL_NS) : now_ns;
    if (d->state_complete && tw_destination_postcopies(d)) {
        tw_destination_move(d, TW_DESTINATION_GUARDING, "all that goes before the VM is here");
        return now_ns;
    }
    if (d->missing.announced && !tw_destination_make_room(d, now_ns))
        return now_ns;
    if (d->state_complete) {
        d->phase_ns = now_ns;
        tw_destination_move(d, TW_DESTINATION_LOADING_STATE, "everything is here");
        if (tw_host_call_begin(&d->call, TW_HOST_LOAD_STATE, &d->device_state, now_ns, &err) !=
            TW_OK)
            tw_destination_give_back(d, &err);
        return now_ns;
    }
    bool idle = d->chunks == d->chunks_seen;
    d->chunks_seen = d->chunks;
    if (!d->begin.verify || d->received.stale_pages == 0)
        return TW_NEVER;
    if (idle)
        tw_received_refresh(&d->received, IDLE_PAGES);
    return now_ns;
}

/* ---- Loading and verifying ------------------------------------------------------------------- */

uint64_t tw_destination_step_loading_state(struct tw_destination *d, uint64_t now_ns)
{
    struct tw_error err = {0};
    enum tw_code code = TW_OK;
    if (!tw_host_call_poll(&d->call, NULL, &code, &err)) {
        if (d->env.stage && !d->staged && now_ns >= tw_after(d->phase_ns, STAGE_AFTER_NS)) {
            d->env.stage(d->env.ctx);
            d->staged = true;
        }
        bool fresh = !d->begin.verify || tw_received_refresh(&d->received, IDLE_PAGES);
        return fresh ? tw_after(now_ns, TW_POLL_NS) : now_ns;
    }
    free(d->device_state.data);
    d->device_state = (struct tw_host_state){0};
    d->meter.p.device_state_ns = now_ns - d->phase_ns;
    if (code != TW_OK)
        tw_destination_give_back(d, &err);
    else
        tw_destination_move(d, TW_DESTINATION_VERIFYING, "the device state is loaded");
    return now_ns;
}

uint64_t tw_destination_step_verifying(struct tw_destination *d, uint64_t now_ns)
{
    char where[TW_WHERE_SIZE];
    if (d->final.verify) {
        if (!tw_received_refresh(&d->received, FINAL_PAGES))
            return now_ns;
        d->meter.p.memory_compared = true;
        d->meter.p.memory_equal = tw_destination_digest(d) == d->final.digest;
        if (!d->meter.p.memory_equal) {
            struct tw_error err;
            tw_fail(&err, TW_DATA_LOSS, tw_migration_where(&d->params, where), NULL, NULL,
                    "the memory here differs from the source's");
            tw_destination_give_back(d, &err);
            return now_ns;
        }
    }
    tw_destination_move(d, TW_DESTINATION_PREPARING,
                        d->final.verify ? "memory is equal" : "verification was not asked for");
    return now_ns;
}

uint64_t tw_destination_step_preparing(struct tw_destination *d, uint64_t now_ns)
{
    struct tw_error err;
    if (d->env.journal(d->env.ctx, TW_HAND_OVER_PREPARED, &err) != TW_OK) {
        tw_destination_give_back(d, &err);
        return now_ns;
    }
    d->hand_over = TW_HAND_OVER_PREPARED;
    tw_received_close(&d->received);
    tw_destination_move(d, TW_DESTINATION_PREPARED, "durable");
    return now_ns;
}

/* ---- Prepared, and whose VM it is --------------------------------------------------------------
 */

static void say_prepared(struct tw_destination *d)
{
    union tw_control m = {
        .prepared = {.epoch = d->params.epoch, .compared = d->meter.p.memory_compared}};
    struct tw_error err;
    enum tw_code code = tw_control_send(d->conn, TW_CONTROL_PREPARED, &m, &err);
    d->prepared_said = code == TW_OK;
    if (code != TW_OK && code != TW_RESOURCE_EXHAUSTED) {
        d->refused = true;
        d->trouble = err;
    }
}

uint64_t tw_destination_step_prepared(struct tw_destination *d, uint64_t now_ns)
{
    struct tw_error err;
    if (d->mutations.start_early && !d->call.busy)
        tw_host_call_begin(&d->call, TW_HOST_CONTINUE, NULL, now_ns, &err);
    if (d->commit_asked) {
        if (now_ns < d->retry_ns)
            return d->retry_ns;
        if (tw_destination_take_over(d, "the source has given up", &err) != TW_OK)
            d->retry_ns = tw_after(now_ns, TW_RETRY_NS);
        return now_ns;
    }
    if (d->conn && !d->prepared_said && !d->refused)
        say_prepared(d);
    if (d->conn && d->refused) { /* nonsense from the peer: only a decision can help now */
        tw_destination_note_error(d, &d->trouble);
        tw_conn_close(d->conn);
        d->conn = NULL;
    }
    return d->conn && !d->prepared_said ? tw_after(now_ns, TW_BLOCKED_NS) : TW_NEVER;
}

enum tw_code tw_destination_take_over(struct tw_destination *d, const char *why,
                                      struct tw_error *err)
{
    struct tw_error failure;
    tw_destination_move(d, TW_DESTINATION_COMMITTING, why);
    enum tw_hand_over owner =
        tw_destination_postcopies(d) ? TW_HAND_OVER_COMMITTED_PARTLY : TW_HAND_OVER_COMMITTED;
    enum tw_code code = d->env.journal(d->env.ctx, owner, &failure);
    if (code != TW_OK) {
        tw_destination_note_error(d, &failure);
        if (err)
            *err = failure;
        tw_destination_move(d, TW_DESTINATION_PREPARED, "the journal cannot be written");
        return code;
    }
    d->hand_over = TW_HAND_OVER_COMMITTED;
    d->failed = false;
    d->retry_ns = 0;
    tw_destination_move(d, TW_DESTINATION_RESUMING, "durable");
    return TW_OK;
}

/* The result of a CONTINUE that was begun; true when it has ended. */
static bool continue_ended(struct tw_destination *d, uint64_t now_ns)
{
    struct tw_error err = {0};
    enum tw_code code;
    if (!tw_host_call_poll(&d->call, NULL, &code, &err))
        return false;
    d->continuing = false;
    d->continued = code == TW_OK;
    d->phase_ns = now_ns;
    if (code == TW_OK)
        return true;
    tw_destination_note_error(d, &err);
    d->retry_ns = tw_after(now_ns, TW_RETRY_NS); /* for as long as there is a machine to resume */
    return true;
}

uint64_t tw_destination_continue(struct tw_destination *d, uint64_t now_ns)
{
    struct tw_error err = {0};
    if (d->continued)
        return TW_NEVER;
    if (d->continuing) {
        if (!continue_ended(d, now_ns))
            return tw_after(now_ns, TW_POLL_NS);
        return d->continued ? TW_NEVER : d->retry_ns;
    }
    if (now_ns < d->retry_ns)
        return d->retry_ns;
    d->continue_asked = true;
    d->continuing = tw_host_call_begin(&d->call, TW_HOST_CONTINUE, NULL, now_ns, &err) == TW_OK;
    if (d->continuing)
        return now_ns;
    tw_destination_note_error(d, &err);
    d->retry_ns = tw_after(now_ns, TW_RETRY_NS);
    return d->retry_ns;
}

uint64_t tw_destination_step_resuming(struct tw_destination *d, uint64_t now_ns)
{
    uint64_t due = tw_destination_continue(d, now_ns);
    if (!d->continued)
        return due;
    d->failed = false;
    if (tw_destination_postcopies(d)) {
        tw_destination_move(d, TW_DESTINATION_FETCHING, "the VM runs");
        return now_ns;
    }
    union tw_control m = {.epoch = {.epoch = d->params.epoch}};
    tw_farewell_say(&d->farewell, TW_CONTROL_RUNNING, &m, now_ns);
    tw_destination_move(d, TW_DESTINATION_COMMITTED, "the VM runs");
    return now_ns;
}

/* ---- Giving back ----------------------------------------------------------------------------- */

uint64_t tw_destination_step_aborting(struct tw_destination *d, uint64_t now_ns)
{
    struct tw_error err;
    enum tw_code code;
    tw_farewell_step(&d->farewell, &d->conn, now_ns);
    if (d->call.busy && tw_host_alive(d->host) && !tw_host_call_poll(&d->call, NULL, &code, &err))
        return tw_after(now_ns, TW_POLL_NS); /* it still reads the device state */
    tw_destination_move(d, TW_DESTINATION_ABORTED, "nothing is under way any more");
    return now_ns;
}
