/* TrackingService: sessions on the operators' account. Handlers ask the tracking thread. */
#include "agentd/tracking_impl.h"

#include "rpc/rpc.h"
#include "towline/v1/tracking.pb-c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EVERY_DEFAULT_MS 1000u
#define EVERY_MIN_MS     10u
#define DRAIN_PAGES      16384u /* counted in one turn */
#define HOTTEST          64u
#define OWNER            0u /* uid of the operators' sessions */

/* ---- On the tracking thread ----------------------------------------------------------------- */

static void operated_close(struct tw_agent_tracking *t, struct tw_operated *o)
{
    struct tw_operated **link = &t->operated;
    while (*link != o)
        link = &(*link)->next;
    *link = o->next;
    tw_tracking_session_close(o->session);
    free(o);
}

void tw_operated_close_all(struct tw_agent_tracking *t)
{
    while (t->operated)
        operated_close(t, t->operated);
}

static uint64_t operated_step(struct tw_operated *o, uint64_t now_ns)
{
    struct tw_error err;
    enum tw_epoch_state state;
    if (o->phase == TW_OPERATED_WAITING) {
        if (now_ns < o->next_ns)
            return o->next_ns;
        o->next_ns = tw_after(now_ns, o->every_ns);
        if (tw_tracking_collect(o->session, o->epoch, true, &err))
            return o->next_ns; /* arming still, or the program has ended; asked again then */
        o->phase = TW_OPERATED_COLLECTING;
    }
    if (o->phase == TW_OPERATED_COLLECTING) {
        tw_tracking_epoch_poll(o->session, o->epoch, &state, NULL);
        if (state == TW_EPOCH_COLLECTING)
            return TW_NEVER; /* the service knows when to go on */
        o->phase = TW_OPERATED_READING;
    }
    if (tw_tracking_read(o->session, o->epoch, NULL, DRAIN_PAGES) == DRAIN_PAGES)
        return 0;
    o->phase = TW_OPERATED_WAITING;
    return o->next_ns;
}

uint64_t tw_operated_step(struct tw_agent_tracking *t, uint64_t now_ns)
{
    uint64_t next = TW_NEVER;
    for (struct tw_operated *o = t->operated; o; o = o->next) {
        uint64_t due = operated_step(o, now_ns);
        if (due < next)
            next = due;
    }
    return next;
}

static struct tw_operated *operated_find(const struct tw_agent_tracking *t, uint64_t id)
{
    struct tw_operated *o = t->operated;
    while (o && o->id != id)
        o = o->next;
    return o;
}

/* ---- Answers -------------------------------------------------------------------------------- */

static Towline__V1__TrackingSums *sums_to_proto(const struct tw_figures *f)
{
    Towline__V1__TrackingSums *s = malloc(sizeof *s);
    if (!s)
        return NULL;
    towline__v1__tracking_sums__init(s);
    s->epochs = f->epochs;
    s->lines = f->lines;
    s->pages = f->pages;
    s->whole_pages = f->whole_pages;
    s->regions = f->regions;
    s->regions_lost = f->regions_lost;
    s->duration_us = f->duration_ns / TW_US;
    s->known_lines = f->known_lines;
    s->changed_bytes = f->changed_bytes;
    s->clean_pages = f->clean_pages;
    return s;
}

static Towline__V1__TrackingSession *session_to_proto(const struct tw_agent_tracking *t,
                                                      const struct tw_tracking_session *session)
{
    Towline__V1__TrackingSession *s = malloc(sizeof *s);
    struct tw_tracking_session_info info;
    size_t count = 0;
    if (!s)
        return NULL;
    towline__v1__tracking_session__init(s);
    tw_tracking_session_info(session, &info);
    s->id = info.id;
    s->pid = info.pid;
    s->uid = info.owner;
    s->by_operator = operated_find(t, info.id) != NULL;
    s->exact = info.exact;
    s->ended = info.ended;
    s->counts_bytes = info.counts_bytes;
    s->last = sums_to_proto(&info.last);
    s->total = sums_to_proto(&info.total);
    s->same_value_is_dirty = info.attachment->same_value_is_dirty;
    while (info.attachment->blind_spots && info.attachment->blind_spots[count])
        count++;
    s->blind_spots = calloc(count + 1, sizeof *s->blind_spots);
    for (size_t i = 0; s->blind_spots && i < count; i++)
        if ((s->blind_spots[i] = strdup(info.attachment->blind_spots[i])))
            s->n_blind_spots++;
    return s;
}

/* ---- Start ---------------------------------------------------------------------------------- */

struct start_query {
    const Towline__V1__StartTrackingRequest *request;
    Towline__V1__StartTrackingResponse *out;
};

static enum tw_code start_on_thread(void *owner, void *arg, struct tw_error *err)
{
    struct tw_agent_tracking *t = owner;
    const struct start_query *q = arg;
    const struct tw_tracking_wish wish = {.exact = q->request->exact};
    struct tw_operated *o = calloc(1, sizeof *o);
    if (!o)
        return TW_RESOURCE_EXHAUSTED;
    enum tw_code code =
        tw_tracking_session_open(t->tracking, q->request->pid, &wish, OWNER, &o->session, err);
    if (!code)
        code = tw_tracking_watch(o->session, NULL, 0, err);
    if (!code)
        code = tw_tracking_epoch_open(o->session, "operator", &o->epoch, err);
    if (code) {
        tw_tracking_session_close(o->session);
        free(o);
        return code;
    }
    uint64_t every_ms = q->request->every_ms ? q->request->every_ms : EVERY_DEFAULT_MS;
    struct tw_tracking_session_info info;
    tw_tracking_session_info(o->session, &info);
    o->id = info.id;
    o->every_ns = every_ms * TW_MS;
    o->next_ns = tw_after(tw_now(&tw_monotonic), o->every_ns);
    o->next = t->operated;
    t->operated = o;
    q->out->session = session_to_proto(t, o->session);
    return TW_OK;
}

static enum tw_code start(void *ctx, const struct tw_rpc_call *call,
                          const ProtobufCMessage *request, ProtobufCMessage *response,
                          struct tw_error *err)
{
    struct tw_agent_tracking *t = ctx;
    struct start_query q = {(const Towline__V1__StartTrackingRequest *)request,
                            (Towline__V1__StartTrackingResponse *)response};
    char given[24];
    snprintf(given, sizeof given, "%u", q.request->every_ms);
    if (q.request->every_ms && q.request->every_ms < EVERY_MIN_MS)
        return tw_fail(err, TW_INVALID_ARGUMENT, "every_ms", "10 or more", given, "too short");
    if (q.request->pid == 0 || q.request->pid > INT32_MAX)
        return tw_fail(err, TW_INVALID_ARGUMENT, "pid", "that of a program", NULL, "not usable");
    return tw_mailbox_call(t->mailbox, start_on_thread, &q, call->deadline_ns, err);
}

/* ---- List, Get, Stop ------------------------------------------------------------------------ */

static enum tw_code list_on_thread(void *owner, void *arg, struct tw_error *err)
{
    struct tw_agent_tracking *t = owner;
    Towline__V1__ListTrackingResponse *out = arg;
    (void)err;
    out->sessions = calloc(TW_TRACKING_SESSIONS_MAX, sizeof *out->sessions);
    for (struct tw_tracking_session *s = NULL;
         out->sessions && (s = tw_tracking_next(t->tracking, s));)
        if ((out->sessions[out->n_sessions] = session_to_proto(t, s)))
            out->n_sessions++;
    return TW_OK;
}

static enum tw_code list(void *ctx, const struct tw_rpc_call *call, const ProtobufCMessage *request,
                         ProtobufCMessage *response, struct tw_error *err)
{
    struct tw_agent_tracking *t = ctx;
    (void)request;
    return tw_mailbox_call(t->mailbox, list_on_thread, response, call->deadline_ns, err);
}

struct get_query {
    uint64_t id;
    Towline__V1__GetTrackingResponse *out;
};

static enum tw_code get_on_thread(void *owner, void *arg, struct tw_error *err)
{
    struct tw_agent_tracking *t = owner;
    const struct get_query *q = arg;
    const struct tw_operated *o = operated_find(t, q->id);
    struct tw_region hot[HOTTEST];
    char given[24];
    snprintf(given, sizeof given, "%llu", (unsigned long long)q->id);
    if (!o)
        return tw_fail(err, TW_NOT_FOUND, "tracking", "a session that an operator started", given,
                       "there is none");
    size_t n = tw_tracking_hottest(o->session, o->epoch, hot, HOTTEST);
    q->out->session = session_to_proto(t, o->session);
    q->out->hottest = calloc(n + 1, sizeof *q->out->hottest);
    for (size_t i = 0; q->out->hottest && i < n; i++) {
        Towline__V1__TrackingRegion *r = malloc(sizeof *r);
        if (!r)
            break;
        towline__v1__tracking_region__init(r);
        r->address = hot[i].address;
        r->lines = hot[i].lines;
        r->pages = hot[i].pages;
        r->changed_bytes = hot[i].bytes;
        q->out->hottest[q->out->n_hottest++] = r;
    }
    return TW_OK;
}

static enum tw_code get(void *ctx, const struct tw_rpc_call *call, const ProtobufCMessage *request,
                        ProtobufCMessage *response, struct tw_error *err)
{
    struct tw_agent_tracking *t = ctx;
    struct get_query q = {((const Towline__V1__GetTrackingRequest *)request)->id,
                          (Towline__V1__GetTrackingResponse *)response};
    return tw_mailbox_call(t->mailbox, get_on_thread, &q, call->deadline_ns, err);
}

static enum tw_code stop_on_thread(void *owner, void *arg, struct tw_error *err)
{
    struct tw_operated *o = operated_find(owner, *(const uint64_t *)arg);
    (void)err;
    if (o)
        operated_close(owner, o);
    return TW_OK;
}

static enum tw_code stop(void *ctx, const struct tw_rpc_call *call, const ProtobufCMessage *request,
                         ProtobufCMessage *response, struct tw_error *err)
{
    struct tw_agent_tracking *t = ctx;
    uint64_t id = ((const Towline__V1__StopTrackingRequest *)request)->id;
    (void)response;
    return tw_mailbox_call(t->mailbox, stop_on_thread, &id, call->deadline_ns, err);
}

enum tw_code tw_agent_tracking_serve(struct tw_agent_tracking *tracking,
                                     struct tw_rpc_server *server, struct tw_error *err)
{
    static const struct tw_rpc_method methods[] = {
        {"Start", start}, {"List", list}, {"Get", get}, {"Stop", stop}};
    return tw_rpc_server_add(server, &towline__v1__tracking_service__descriptor, methods,
                             sizeof methods / sizeof *methods, tracking, err);
}
