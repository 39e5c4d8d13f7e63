#include "services/migration/source.h"

#include <stdlib.h>

/* The longest that a VM may stand still before we give up, beside what its last lines need. */
#define STOPPED_LIMIT_NS (30 * TW_SEC)
#define RUNNING_LIMIT_NS (10 * TW_SEC) /* from commit to the destination's answer */

void tw_source_stop(struct tw_source *s, const char *why, uint64_t now_ns)
{
    struct tw_error err;
    uint64_t rate = s->throttle.bytes_per_s ? s->throttle.bytes_per_s : TW_DEFAULT_RATE;
    /* A limit spares the network while the guest runs; now it would only prolong the pause. */
    tw_throttle_set(&s->throttle, 0, now_ns);
    uint64_t lines_ns =
        (uint64_t)((unsigned __int128)s->dirty_lines * 4 * TW_LINE_SIZE * TW_SEC / rate);
    tw_source_move(s, TW_SOURCE_STOPPING, why);
    tw_source_pace_end(s);
    s->stop_asked = true;
    s->stop_ns = now_ns;
    s->stop_deadline_ns = tw_after(now_ns, STOPPED_LIMIT_NS + lines_ns);
    if (tw_host_call_begin(&s->call, TW_HOST_STOP, NULL, now_ns, &err) != TW_OK)
        tw_source_abort(s, &err);
}

/* Takes the device state as soon as it is saved, whatever else is done meanwhile: how long that
 * took is what a later plan wants to know. A failure waits until the state is needed. */
static void watch_save(struct tw_source *s, uint64_t now_ns)
{
    if (!s->call.busy ||
        !tw_host_call_poll(&s->call, &s->device_state, &s->save_code, &s->save_err))
        return;
    s->meter.p.save_ns = now_ns - s->stop_ns - s->meter.p.stop_ns;
}

/* Polls the operation under way. True when it ended well; when it failed the side aborts. */
static bool host_done(struct tw_source *s)
{
    struct tw_error err = {0};
    enum tw_code code = TW_OK;
    if (!tw_host_call_poll(&s->call, NULL, &code, &err))
        return false;
    if (code == TW_OK)
        return true;
    tw_source_abort(s, &err);
    return false;
}

/* When to look again after an operation did not end well: at once if the side has moved on. */
static uint64_t look_again(const struct tw_source *s, enum tw_source_state state, uint64_t now_ns)
{
    return s->machine.state == state ? tw_after(now_ns, TW_POLL_NS) : now_ns;
}

uint64_t tw_source_step_stopping(struct tw_source *s, uint64_t now_ns)
{
    struct tw_error err;
    if (!host_done(s))
        return look_again(s, TW_SOURCE_STOPPING, now_ns);
    s->meter.p.stop_ns = now_ns - s->stop_ns;
    s->phase_ns = now_ns;
    tw_source_move(s, TW_SOURCE_FINAL_PASS, "no vCPU runs");
    tw_source_round_begin(s, s->tracker ? s->round + 1 : 0, true, now_ns);
    tw_line_hashes_settle(&s->hashes);
    if (tw_source_postcopies(s) && tw_source_rest_begin(s, &err) != TW_OK) {
        tw_source_abort(s, &err);
        return now_ns;
    }
    if (s->tracker && !s->mutations.skip_final_sweep)
        tw_source_collect(s, now_ns);
    if (tw_host_call_begin(&s->call, TW_HOST_SAVE_STATE, NULL, now_ns, &err) != TW_OK)
        tw_source_abort(s, &err);
    return now_ns;
}

/* ---- Last lines ------------------------------------------------------------------------------ */

uint64_t tw_source_finish_lines(struct tw_source *s, uint64_t now_ns)
{
    bool verify = !s->limits.skip_verify;
    if (tw_source_postcopies(s) && !s->rest.map_said) {
        tw_source_move(s, TW_SOURCE_SENDING_MAP, "what is to follow is known");
        return now_ns;
    }
    s->meter.p.final_pass_ns = now_ns - s->phase_ns;
    if (!tw_source_round_end(s, now_ns))
        return s->copy.retry_ns;
    union tw_control final = {.final_end = {.digest = verify ? s->digest : 0,
                                            .totals = s->copy.totals,
                                            .verify = verify}};
    if (!tw_source_say(s, TW_CONTROL_FINAL_END, &final, &s->final_said, now_ns))
        return s->copy.retry_ns;
    s->meter.p.final_pass_ns = now_ns - s->phase_ns;
    s->dirty_lines = 0;
    s->phase_ns = now_ns;
    tw_source_move(s, TW_SOURCE_SAVING_STATE, "the destination has every line");
    return now_ns;
}

uint64_t tw_source_step_final_pass(struct tw_source *s, uint64_t now_ns)
{
    s->copy.slice = TW_FINAL_SLICE_BYTES;
    watch_save(s, now_ns);
    if (s->limits.method == TW_METHOD_POST_COPY)
        return tw_source_mark_all(s, now_ns) ? tw_source_finish_lines(s, now_ns) : now_ns;
    if (!s->mutations.skip_final_sweep && !tw_source_gather_dirty(s, now_ns))
        return s->copy.retry_ns;
    if (!tw_source_compares(s))
        return tw_source_finish_lines(s, now_ns);
    tw_source_walk_begin(s);
    s->digest = 0;
    s->compare_began_ns = now_ns;
    tw_source_move(s, TW_SOURCE_COMPARE, "the last tracked line was gathered");
    return now_ns;
}

static bool compare_all(struct tw_source *s, uint64_t now_ns)
{
    uint64_t page;
    for (uint64_t done = 0;; done += TW_PAGE_SIZE) {
        if (!tw_source_pump(s, now_ns))
            return false;
        if (done >= TW_FINAL_SLICE_BYTES) {
            s->copy.retry_ns = now_ns;
            return false;
        }
        if (!tw_source_walk_next(s, &page))
            return true;
        if (tw_line_hashes_is_settled(&s->hashes, page)) {
            s->digest += tw_line_hashes_digest(&s->hashes, page);
            continue;
        }
        uint64_t lines = tw_line_hashes_compare(&s->hashes, page,
                                                s->host->memory + page * TW_PAGE_SIZE, &s->digest);
        if (!lines || s->mutations.skip_compare)
            continue;
        if (s->rest.marking) /* what was named was not sent, so it differs, too */
            lines &= ~s->rest.lines.of_page[page];
        s->meter.p.lines_found_by_compare_only += tw_popcount(lines);
        tw_source_put(s, page, lines);
    }
}

/* The hashes of the last lines must be known before they are compared with, so what is still in
 * an open chunk is flushed first. */
uint64_t tw_source_step_compare(struct tw_source *s, uint64_t now_ns)
{
    watch_save(s, now_ns);
    if (s->copy.walk.page == 0 && !tw_source_flush(s, now_ns))
        return s->copy.retry_ns;
    if (!compare_all(s, now_ns))
        return s->copy.retry_ns;
    s->meter.p.compare_ns = now_ns - s->compare_began_ns;
    return tw_source_finish_lines(s, now_ns);
}

/* ---- Device state ---------------------------------------------------------------------------- */

uint64_t tw_source_step_saving_state(struct tw_source *s, uint64_t now_ns)
{
    watch_save(s, now_ns);
    if (s->call.busy)
        return tw_after(now_ns, TW_POLL_NS);
    if (s->save_code != TW_OK) {
        tw_source_abort(s, &s->save_err);
        return now_ns;
    }
    if (s->device_state.size == 0 || s->device_state.size > TW_HOST_STATE_MAX)
        return tw_source_fail(s, TW_INTERNAL, "the saved device state has an impossible size");
    s->meter.p.saving_ns = now_ns - s->phase_ns;
    tw_source_move(s, TW_SOURCE_SENDING_STATE, "saved");
    return now_ns;
}

uint64_t tw_source_step_sending_state(struct tw_source *s, uint64_t now_ns)
{
    while (s->state_sent < s->device_state.size)
        if (!tw_source_send_state(s, now_ns))
            return s->copy.retry_ns;
    union tw_control end = {
        .state_end = {.size = s->device_state.size,
                      .hash = tw_bytes_hash(s->device_state.data, s->device_state.size)}};
    if (!tw_source_say(s, TW_CONTROL_STATE_END, &end, &s->state_said, now_ns))
        return s->copy.retry_ns;
    free(s->device_state.data);
    s->device_state = (struct tw_host_state){0};
    tw_source_move(s, TW_SOURCE_VERIFYING, "sent");
    return now_ns;
}

/* ---- Hand-over ------------------------------------------------------------------------------- */

static uint64_t switch_over(struct tw_source *s, const char *why, uint64_t now_ns)
{
    struct tw_error err;
    if (!s->env.hook_begin) {
        tw_source_move(s, TW_SOURCE_GIVING_UP, why);
        return now_ns;
    }
    tw_source_move(s, TW_SOURCE_HOOK, why);
    s->hook_busy = true;
    if (s->env.hook_begin(s->env.ctx, &err) != TW_OK) {
        s->hook_busy = false;
        tw_source_abort(s, &err);
    }
    return now_ns;
}

uint64_t tw_source_step_verifying(struct tw_source *s, uint64_t now_ns)
{
    if (!s->prepared) {
        if (s->env.stage && !s->staged)
            s->env.stage(s->env.ctx);
        s->staged = true;
        return TW_NEVER;
    }
    s->meter.p.device_state_ns = now_ns - s->phase_ns;
    s->phase_ns = now_ns;
    if (tw_source_mirror_ready(s))
        return switch_over(s, "the destination is prepared", now_ns);
    tw_source_move(s, TW_SOURCE_MIRRORING, "the destination is prepared, the mirror is not");
    return now_ns;
}

uint64_t tw_source_step_mirroring(struct tw_source *s, uint64_t now_ns)
{
    if (!tw_source_mirror_ready(s))
        return TW_NEVER; /* the mirror's word, or the limit on a VM that stands still */
    s->meter.p.mirror_ns = now_ns - s->phase_ns;
    s->phase_ns = now_ns;
    return switch_over(s, "the mirror holds what is to follow", now_ns);
}

uint64_t tw_source_step_hook(struct tw_source *s, uint64_t now_ns)
{
    struct tw_error err = {0};
    enum tw_code code = TW_OK;
    if (!s->env.hook_poll(s->env.ctx, &code, &err))
        return tw_after(now_ns, TW_POLL_NS);
    s->hook_busy = false;
    s->hook_ns = now_ns - s->phase_ns;
    s->meter.p.hook_ns = s->hook_ns;
    if (code != TW_OK)
        tw_source_abort(s, &err);
    else
        tw_source_move(s, TW_SOURCE_GIVING_UP, "the hook has switched over");
    return now_ns;
}

uint64_t tw_source_step_giving_up(struct tw_source *s, uint64_t now_ns)
{
    struct tw_error err;
    if (s->env.journal(s->env.ctx, TW_HAND_OVER_GIVEN_UP, &err) != TW_OK) {
        tw_source_abort(s, &err);
        return now_ns;
    }
    s->hand_over = TW_HAND_OVER_GIVEN_UP;
    s->commit_ns = now_ns;
    tw_source_move(s, TW_SOURCE_GIVEN_UP, "durable");
    tw_source_let_go(s);
    return now_ns;
}

uint64_t tw_source_step_given_up(struct tw_source *s, uint64_t now_ns)
{
    if (s->running) {
        if (s->meter.p.downtime_ns == 0 && !s->adopted) {
            s->meter.p.downtime_ns = now_ns - s->stop_ns - s->hook_ns;
            s->meter.p.hand_over_ns = now_ns - s->phase_ns - s->hook_ns;
        }
        if (tw_source_postcopies(s)) {
            s->phase_ns = now_ns;
            tw_source_move(s, TW_SOURCE_SERVING, "the destination runs");
            return now_ns;
        }
        if (now_ns < s->retry_ns)
            return s->retry_ns;
        if (s->env.journal(s->env.ctx, TW_HAND_OVER_COMMITTED, &s->error) == TW_OK) {
            tw_source_complete(s, "the destination runs");
            return now_ns;
        }
        s->failed = true;
        s->retry_ns = tw_after(now_ns, TW_RETRY_NS);
        return s->retry_ns;
    }
    uint64_t due;
    if (tw_source_asks(s, now_ns, &due))
        return due;
    if (!s->conn)
        return TW_NEVER; /* a decision from outside, or the destination itself */
    union tw_control commit = {.epoch = {.epoch = s->params.epoch}};
    if (!tw_source_say(s, TW_CONTROL_COMMIT, &commit, &s->commit_said, now_ns))
        return s->copy.retry_ns;
    uint64_t limit_ns = tw_after(s->commit_ns, RUNNING_LIMIT_NS);
    if (now_ns < limit_ns && !s->peer_aborted)
        return limit_ns;
    if (s->peer_aborted)
        tw_source_abort(s, &s->peer_error);
    else
        tw_source_fail(s, TW_DEADLINE_EXCEEDED, "the destination does not say that the VM runs");
    return now_ns;
}

/* ---- Back to where it was ----------------------------------------------------------------------
 */

/* An operation or hook that the abort has overtaken ends first: the host does one at a time. */
static bool overtaken_ended(struct tw_source *s, uint64_t now_ns)
{
    struct tw_error err;
    enum tw_code code;
    if (s->hook_busy) {
        bool over = s->env.hook_poll(s->env.ctx, &code, &err) || now_ns >= s->hook_until_ns;
        s->hook_busy = !over;
        if (!over)
            return false;
    }
    if (!s->call.busy || s->continuing)
        return true;
    return tw_host_call_poll(&s->call, NULL, &code, &err);
}

uint64_t tw_source_step_resuming(struct tw_source *s, uint64_t now_ns)
{
    struct tw_error err;
    enum tw_code code;
    tw_farewell_step(&s->farewell, &s->conn, now_ns);
    if (!overtaken_ended(s, now_ns))
        return tw_after(now_ns, TW_POLL_NS);
    if (!s->continuing) {
        if (now_ns < s->retry_ns)
            return s->retry_ns;
        code = tw_host_call_begin(&s->call, TW_HOST_CONTINUE, NULL, now_ns, &err);
        s->continuing = code == TW_OK;
        s->retry_ns = tw_after(now_ns, TW_RETRY_NS);
        return s->continuing ? now_ns : s->retry_ns;
    }
    if (!tw_host_call_poll(&s->call, NULL, &code, &err))
        return tw_after(now_ns, TW_POLL_NS);
    s->continuing = false;
    s->retry_ns = tw_after(now_ns, TW_RETRY_NS);
    if (code != TW_OK)
        return s->retry_ns; /* for as long as there is a machine to resume */
    s->stop_asked = false;
    s->meter.p.downtime_ns = now_ns - s->stop_ns - s->hook_ns;
    tw_source_move(s, TW_SOURCE_ABORTED, "the VM runs on here");
    return now_ns;
}
