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
#define OWNER            0u  /* uid of the operators' sessions */
#define SHARED           64u /* lines in an answer */

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
    if (tw_tracking_read(o->session, o->epoch, NULL, DRAIN_PAGES) == DRAIN_PAGES ||
        tw_tracking_read_accessed(o->session, o->epoch, NULL, DRAIN_PAGES) == DRAIN_PAGES)
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
    s->accessed_lines = f->accessed_lines;
    s->accessed_pages = f->accessed_pages;
    s->same_lines = f->same_lines;
    return s;
}

static Towline__V1__TrackingAttachment attachment_to_proto(enum tw_attachment_kind kind)
{
    return kind == TW_ATTACHMENT_INSTRUMENTED
               ? TOWLINE__V1__TRACKING_ATTACHMENT__TRACKING_ATTACHMENT_INSTRUMENTED
               : TOWLINE__V1__TRACKING_ATTACHMENT__TRACKING_ATTACHMENT_PROCESS;
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
    s->attachment = attachment_to_proto(info.attachment->kind);
    s->why = strdup(info.why);
    s->sharing = info.sharing;
    s->shared = info.shared;
    s->shared_falsely = info.shared_falsely;
    s->accessed = info.loads;
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

static enum tw_attachment_kind kind_of(Towline__V1__TrackingAttachment attachment)
{
    switch (attachment) {
    case TOWLINE__V1__TRACKING_ATTACHMENT__TRACKING_ATTACHMENT_PROCESS:
        return TW_ATTACHMENT_PROCESS;
    case TOWLINE__V1__TRACKING_ATTACHMENT__TRACKING_ATTACHMENT_INSTRUMENTED:
        return TW_ATTACHMENT_INSTRUMENTED;
    default:
        return TW_ATTACHMENT_ANY;
    }
}

static enum tw_code start_on_thread(void *owner, void *arg, struct tw_error *err)
{
    struct tw_agent_tracking *t = owner;
    const struct start_query *q = arg;
    const struct tw_tracking_wish wish = {.exact = q->request->exact,
                                          .sharing = q->request->sharing,
                                          .loads = q->request->accessed,
                                          .bytes = q->request->bytes,
                                          .kind = kind_of(q->request->attachment)};
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
    snprintf(given, sizeof given, "%d", (int)q.request->attachment);
    if (!protobuf_c_enum_descriptor_get_value(&towline__v1__tracking_attachment__descriptor,
                                              (int)q.request->attachment))
        return tw_fail(err, TW_INVALID_ARGUMENT, "attachment", "one of TrackingAttachment", given,
                       "not known here");
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

static Towline__V1__TrackingSharedLine *shared_to_proto(const struct tw_shared_line *from)
{
    Towline__V1__TrackingSharedLine *line = malloc(sizeof *line);
    if (!line)
        return NULL;
    towline__v1__tracking_shared_line__init(line);
    line->address = from->address;
    line->falsely = from->disjoint;
    line->threads = calloc(TW_SHARED_LINE_THREADS, sizeof *line->threads);
    for (uint32_t i = 0; line->threads && i < from->thread_count; i++) {
        Towline__V1__TrackingSharedLine__Thread *thread = malloc(sizeof *thread);
        if (!thread)
            break;
        towline__v1__tracking_shared_line__thread__init(thread);
        thread->tid = from->threads[i].tid;
        thread->pc = from->threads[i].pc;
        thread->bytes = from->threads[i].bytes;
        line->threads[line->n_threads++] = thread;
    }
    return line;
}

static void shared_add(const struct tw_operated *o, Towline__V1__GetTrackingResponse *out)
{
    struct tw_shared_line lines[SHARED];
    uint64_t total;
    const size_t count = tw_tracking_shared(o->session, o->epoch, lines, SHARED, &total);
    out->shared = calloc(count + 1, sizeof *out->shared);
    for (size_t i = 0; out->shared && i < count; i++)
        if ((out->shared[out->n_shared] = shared_to_proto(&lines[i])))
            out->n_shared++;
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
    shared_add(o, q->out);
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
