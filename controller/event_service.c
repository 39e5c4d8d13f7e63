#include "controller/convert.h"
#include "controller/services.h"

#include "base/clock.h"
#include "towline/v1/event.pb-c.h"

#include <stdlib.h>
#include <string.h>

#define EVENTS_DEFAULT 100u
#define EVENTS_MAX     1000u
#define WAIT_MAX_MS    10000u
#define ANSWER_NS      (100 * TW_MS) /* left of the caller's time for the answer */
#define ANSWER_BYTES   (2u << 20)    /* well below what a message may have */

struct reader {
    Towline__V1__WatchEventsResponse *response;
    size_t bytes;
    uint64_t last;
    bool full, failed;
};

static void read_event(void *ctx, uint64_t revision, const uint8_t *body, size_t size)
{
    struct reader *r = ctx;
    r->full = r->full || r->bytes + size > ANSWER_BYTES;
    if (r->full || r->failed)
        return;
    Towline__V1__Event *e = towline__v1__event__unpack(NULL, size, body);
    if (e)
        e->revision = revision;
    if (!tw_append(&r->response->events, &r->response->n_events, e ? &e->base : NULL)) {
        r->failed = true;
        return;
    }
    r->bytes += size;
    r->last = revision;
}

/* *newest: what has been looked at, whether it fitted the subject or not. */
static enum tw_code read_events(struct tw_services *s,
                                const Towline__V1__WatchEventsRequest *request, uint32_t max,
                                uint64_t after, struct reader *r, uint64_t *newest,
                                struct tw_error *err)
{
    enum tw_code code = tw_store_begin(s->store, TW_STORE_READ, err);
    if (code != TW_OK)
        return code;
    code = tw_store_events_read(s->store, after, request->subject, max, read_event, r, err);
    if (code == TW_OK)
        code = tw_store_events_bounds(s->store, &r->response->oldest_revision, newest, err);
    code = tw_store_end(s->store, code, err);
    return code == TW_OK && r->failed ? tw_no_memory("events", err) : code;
}

static enum tw_code check(const Towline__V1__WatchEventsRequest *request, struct tw_error *err)
{
    char given[24];
    snprintf(given, sizeof given, "%u", request->max_events);
    if (request->max_events > EVENTS_MAX)
        return tw_fail(err, TW_INVALID_ARGUMENT, "max_events", "at most 1000", given, "too many");
    snprintf(given, sizeof given, "%u", request->wait_ms);
    if (request->wait_ms > WAIT_MAX_MS)
        return tw_fail(err, TW_INVALID_ARGUMENT, "wait_ms", "at most 10000", given, "too long");
    if (strlen(request->subject) >= TW_NAME_SIZE)
        return tw_fail(err, TW_INVALID_ARGUMENT, "subject", "at most 63 bytes", NULL, "too long");
    return TW_OK;
}

static enum tw_code watch(struct tw_services *s, const struct tw_rpc_call *call,
                          const Towline__V1__WatchEventsRequest *request,
                          Towline__V1__WatchEventsResponse *response, struct tw_error *err)
{
    enum tw_code code = check(request, err);
    if (code != TW_OK)
        return code;
    uint32_t max = request->max_events ? request->max_events : EVENTS_DEFAULT;
    uint64_t until = tw_after(tw_now(&tw_monotonic), request->wait_ms * TW_MS);
    uint64_t latest = call->deadline_ns > ANSWER_NS ? call->deadline_ns - ANSWER_NS : 0;
    uint64_t after = request->after_revision, newest = 0;
    struct reader r = {.response = response};
    if (until > latest)
        until = latest;
    do {
        code = read_events(s, request, max, after, &r, &newest, err);
        if (newest > after)
            after = newest;
    } while (code == TW_OK && !response->n_events && tw_events_wait(s->events, after, until));
    /* Cut short: go on behind what was given. Else everything up to the newest was looked at. */
    bool cut = r.full || response->n_events >= max;
    response->next_revision = cut && response->n_events ? r.last : after;
    return code;
}

TW_SERVED(watch, "EventService/Watch")

enum tw_code tw_event_service_add(struct tw_services *services, struct tw_rpc_server *server,
                                  struct tw_error *err)
{
    static const struct tw_rpc_method methods[] = {{"Watch", watch_served}};
    return tw_rpc_server_add(server, &towline__v1__event_service__descriptor, methods, 1, services,
                             err);
}
