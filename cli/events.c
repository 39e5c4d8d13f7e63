#include "cli/command.h"
#include "cli/follow.h"
#include "cli/format.h"
#include "cli/json.h"
#include "cli/options.h"

#include "towline/v1/event.pb-c.h"

#define SERVICE (&towline__v1__event_service__descriptor)

#define WATCH_MS                                                                                   \
    1000u /* of waiting at the controller; short, for an interruption shows only then */
#define CALL_MS    4000u
#define EVENTS_MAX 500u /* in one answer */

static void print_event(struct tow *tow, const Towline__V1__Event *event)
{
    char time[TOW_TIME_TEXT], kind[64], subject[96], text[1024];
    if (tow->json) {
        tow_json_print(&event->base, TOW_JSON_ONE_LINE, tow->out);
        fputc('\n', tow->out);
        return;
    }
    fprintf(tow->out, "%8llu  %s  %s%-18s%s  %-16s  %s\n", (unsigned long long)event->revision,
            tow_time_format(event->unix_ms, time), tow_tone_begin(TOW_TONE_TITLE, tow->color_out),
            tow_safe_text(event->kind, kind, sizeof kind),
            tow_tone_end(TOW_TONE_TITLE, tow->color_out),
            tow_safe_text(event->subject, subject, sizeof subject),
            tow_safe_text(event->text, text, sizeof text));
}

static void note_gap(struct tow *tow, uint64_t after, const Towline__V1__WatchEventsResponse *r)
{
    if (after > 0 && r->oldest_revision > after + 1)
        fprintf(tow->err, "tow: events %llu to %llu are no longer kept\n",
                (unsigned long long)after + 1, (unsigned long long)r->oldest_revision - 1);
}

static size_t print_events(struct tow *tow, const Towline__V1__WatchEventsResponse *r)
{
    for (size_t i = 0; i < r->n_events; i++)
        print_event(tow, r->events[i]);
    fflush(tow->out);
    return r->n_events;
}

/* One answer; *count is the number of events in it. */
static enum tw_code watch(struct tow *tow, Towline__V1__WatchEventsRequest *request, size_t *count,
                          struct tw_error *err)
{
    ProtobufCMessage *response;
    bool follow = request->wait_ms > 0;
    *count = 0;
    enum tw_code code = tow_call_within(tow, SERVICE, "Watch", &request->base,
                                        follow ? CALL_MS : tow->timeout_ms, &response, err);
    if (code != TW_OK)
        return code;
    const Towline__V1__WatchEventsResponse *r = (const void *)response;
    note_gap(tow, request->after_revision, r);
    *count = print_events(tow, r);
    request->after_revision = r->next_revision;
    protobuf_c_message_free_unpacked(response, NULL);
    return TW_OK;
}

static int follow_events(struct tow *tow, Towline__V1__WatchEventsRequest *request)
{
    struct tow_absence absence;
    struct tw_error err = {0};
    size_t count;
    tow_absence_init(&absence, tow);
    tow_interrupt_catch();
    request->wait_ms = WATCH_MS;
    while (!tow_interrupted() && !ferror(tow->out)) {
        enum tw_code code = watch(tow, request, &count, &err);
        if (!tow_absence_bridge(&absence, code))
            return tow_fail(tow, &err);
    }
    return TOW_EXIT_OK; /* the way in which following is meant to end */
}

static int kept_events(struct tow *tow, Towline__V1__WatchEventsRequest *request)
{
    struct tw_error err = {0};
    uint64_t before;
    size_t count;
    do {
        before = request->after_revision;
        if (watch(tow, request, &count, &err) != TW_OK)
            return tow_fail(tow, &err);
    } while (count > 0 && request->after_revision > before);
    return TOW_EXIT_OK;
}

int tow_events(struct tow *tow, const struct tow_arguments *arguments)
{
    Towline__V1__WatchEventsRequest request = TOWLINE__V1__WATCH_EVENTS_REQUEST__INIT;
    const char *after = tow_option_value(arguments, "after");
    const char *subject = tow_option_value(arguments, "subject");
    struct tw_error err = {0};
    if (after && tow_number_parse("--after", after, 0, UINT64_MAX / 2, &request.after_revision,
                                  &err) != TW_OK)
        return tow_fail(tow, &err);
    if (subject)
        request.subject = tow_text(subject);
    request.max_events = EVENTS_MAX;
    return tow_option_value(arguments, "follow") ? follow_events(tow, &request)
                                                 : kept_events(tow, &request);
}
