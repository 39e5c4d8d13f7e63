/* A pass: everything that was stored before it is brought to the device, a window at a time. How
 * long it takes is the program's doing; that others wait for a piece of it only is ours. */
#include "hosts/instrumented/private.h"

#include "base/clock.h"

static void enter(struct tw_instrumented *p, enum tw_inst_phase phase)
{
    p->phase = phase;
    p->next_window = 0;
    if (phase == TW_INST_DISCOVER)
        tw_inst_discover_begin(p);
    else if (phase == TW_INST_CARRY)
        tw_inst_carry_begin(p);
    else if (phase == TW_INST_SCAN && p->mode == TW_INST_OWNED)
        tw_inst_take_events(p);
    else if (phase == TW_INST_SHARE)
        p->shared_looks = TW_INST_LOOKS_MAX;
}

void tw_inst_pass_begin(struct tw_instrumented *p, enum tw_inst_phase first)
{
    enter(p, first);
}

static enum tw_inst_phase next_phase(struct tw_instrumented *p)
{
    switch (p->phase) {
    case TW_INST_DISCOVER:
        return p->settled ? TW_INST_CARRY : TW_INST_SCAN;
    case TW_INST_CARRY:
        tw_inst_carry_end(p);
        return TW_INST_SCAN;
    case TW_INST_SCAN:
        return p->shares ? TW_INST_SHARE : TW_INST_DONE;
    default:
        return TW_INST_DONE;
    }
}

/* One window of the phase; true when there is none left. */
static bool next_window(struct tw_instrumented *p)
{
    if (p->next_window == p->window_count)
        return true;
    struct tw_inst_window *w = p->windows[p->next_window++];
    if (p->phase == TW_INST_CARRY)
        tw_inst_carry_window(p, w);
    else if (p->phase == TW_INST_SCAN)
        tw_inst_scan_window(p, w);
    else
        tw_inst_sharing_window(p, w);
    return p->next_window == p->window_count;
}

enum tw_code tw_inst_pass_go_on(struct tw_instrumented *p, uint64_t deadline_ns,
                                struct tw_error *err)
{
    do {
        bool complete = false;
        const enum tw_code code =
            p->phase == TW_INST_DISCOVER ? tw_inst_discover_next(p, &complete, err) : TW_OK;
        if (code)
            return code;
        if (p->phase != TW_INST_DISCOVER)
            complete = next_window(p);
        if (complete)
            enter(p, next_phase(p));
    } while (p->phase != TW_INST_DONE && tw_now(&tw_monotonic) < deadline_ns);
    return TW_OK;
}

void tw_instrumented_sync(struct tw_instrumented *p)
{
    p->shares = false;
    tw_inst_pass_begin(p, p->settled ? TW_INST_CARRY : TW_INST_SCAN);
    tw_inst_pass_go_on(p, UINT64_MAX, NULL);
}
