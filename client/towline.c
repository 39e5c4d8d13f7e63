#include "client/towline.h"

#include "client/connection.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define EPOCHS_MAX 8u

/* The library's structures are those that travel, where they can be. */
static_assert(sizeof(struct towline_lines) == sizeof(struct tw_local_lines), "the same");
static_assert(sizeof(struct towline_sums) == sizeof(struct tw_local_sums), "the same");
static_assert(sizeof(struct towline_hot) == sizeof(struct tw_local_hot), "the same");
static_assert(sizeof(struct towline_guest) == sizeof(struct tw_local_guest), "the same");
static_assert(sizeof(struct towline_shared_line) == sizeof(struct tw_local_shared), "the same");
static_assert(sizeof(struct towline_range) == sizeof(struct tw_local_range), "the same");

struct epoch {
    bool used;
    char name[TW_LOCAL_NAME_SIZE];
    uint32_t number; /* the agent's */
};

struct towline_session {
    pthread_mutex_t lock;
    struct tw_client_connection connection;
    pid_t owner; /* this process */
    uint64_t pid;
    uint32_t flags; /* TW_LOCAL_EXACT to TW_LOCAL_BYTES */
    bool caught, opened;
    struct towline_range *ranges;
    size_t range_count;
    struct towline_info info;
    char *blind_spots, *why;
    struct epoch epochs[EPOCHS_MAX];
};

const char *towline_code_name(int code)
{
    static const char *const names[] = {"OK",
                                        "CANCELLED",
                                        "UNKNOWN",
                                        "INVALID_ARGUMENT",
                                        "DEADLINE_EXCEEDED",
                                        "NOT_FOUND",
                                        "ALREADY_EXISTS",
                                        "PERMISSION_DENIED",
                                        "RESOURCE_EXHAUSTED",
                                        "FAILED_PRECONDITION",
                                        "ABORTED",
                                        "OUT_OF_RANGE",
                                        "UNIMPLEMENTED",
                                        "INTERNAL",
                                        "UNAVAILABLE",
                                        "DATA_LOSS",
                                        "UNAUTHENTICATED"};
    return code >= 0 && (size_t)code < sizeof names / sizeof *names ? names[code] : "UNKNOWN";
}

/* ---- Open and close ------------------------------------------------------------------------- */

/* Programs made before there were more options give the size that they had then. */
#define OPTIONS_SIZE_FIRST offsetof(struct towline_options, attachment)

static uint32_t flags_of(const struct towline_options *o)
{
    return (o->exact ? TW_LOCAL_EXACT : 0) | (o->sharing ? TW_LOCAL_SHARING : 0) |
           (o->accessed ? TW_LOCAL_LOADS : 0) | (o->bytes ? TW_LOCAL_BYTES : 0) |
           (o->attachment == TOWLINE_PROCESS        ? TW_LOCAL_PROCESS
            : o->attachment == TOWLINE_INSTRUMENTED ? TW_LOCAL_INSTRUMENTED
                                                    : 0);
}

int towline_open(const struct towline_options *options, towline_session **session)
{
    struct towline_options o = {.size = sizeof o};
    if (!session)
        return tw_client_fail(TOWLINE_INVALID_ARGUMENT, "session: a place for it is needed");
    *session = NULL;
    if (options && (options->size < OPTIONS_SIZE_FIRST || options->pid < 0))
        return tw_client_fail(TOWLINE_INVALID_ARGUMENT, "options: size or pid is not usable");
    if (options)
        memcpy(&o, options, options->size < sizeof o ? options->size : sizeof o);
    if (o.attachment > TOWLINE_INSTRUMENTED)
        return tw_client_fail(TOWLINE_INVALID_ARGUMENT, "options: no such attachment");
    towline_session *s = calloc(1, sizeof *s);
    if (!s)
        return tw_client_fail(TOWLINE_RESOURCE_EXHAUSTED, "no memory");
    int code = tw_client_connect(&s->connection, o.socket, o.timeout_ms);
    if (code) {
        free(s);
        return code;
    }
    pthread_mutex_init(&s->lock, NULL);
    s->owner = getpid();
    s->pid = (uint64_t)o.pid;
    s->flags = flags_of(&o);
    *session = s;
    return TOWLINE_OK;
}

void towline_close(towline_session *session)
{
    if (!session)
        return;
    if (session->owner == getpid()) /* a forked child leaves its parent's session alone */
        tw_client_leave(&session->connection);
    tw_client_disconnect(&session->connection);
    pthread_mutex_destroy(&session->lock);
    free(session->ranges);
    free(session->blind_spots);
    free(session->why);
    free(session);
}

/* Takes the session for a call; `leave` gives it back and passes the code on. */
static int enter(towline_session *session)
{
    if (!session)
        return tw_client_fail(TOWLINE_INVALID_ARGUMENT, "session: NULL");
    if (session->owner != getpid())
        return tw_client_fail(TOWLINE_FAILED_PRECONDITION,
                              "the session is of the process that this one was forked from");
    pthread_mutex_lock(&session->lock);
    return TOWLINE_OK;
}

static int leave(towline_session *session, int code)
{
    pthread_mutex_unlock(&session->lock);
    return code;
}

/* ---- Ranges --------------------------------------------------------------------------------- */

static int add_ranges(towline_session *s, const struct towline_range *ranges, size_t count)
{
    if (s->opened)
        return tw_client_fail(TOWLINE_FAILED_PRECONDITION,
                              "ranges are registered before the first start");
    if (count > TW_LOCAL_RANGES_MAX - s->range_count)
        return tw_client_fail(TOWLINE_RESOURCE_EXHAUSTED, "at most %u ranges", TW_LOCAL_RANGES_MAX);
    struct towline_range *more = realloc(s->ranges, (s->range_count + count + 1) * sizeof *more);
    if (!more)
        return tw_client_fail(TOWLINE_RESOURCE_EXHAUSTED, "no memory");
    s->ranges = more;
    memcpy(more + s->range_count, ranges, count * sizeof *more);
    s->range_count += count;
    return TOWLINE_OK;
}

int towline_register(towline_session *session, const struct towline_range *ranges, size_t count)
{
    int code = enter(session);
    if (code)
        return code;
    if (count > 0 && !ranges)
        return leave(session, tw_client_fail(TOWLINE_INVALID_ARGUMENT, "ranges: NULL"));
    return leave(session, count ? add_ranges(session, ranges, count) : TOWLINE_OK);
}

/* ---- Start and stop ------------------------------------------------------------------------- */

int towline_catch(towline_session *session)
{
    int code = enter(session);
    if (code)
        return code;
    const struct tw_local_catch request = {.pid = session->pid, .flags = session->flags};
    code =
        tw_client_ask(&session->connection, TW_LOCAL_CATCH, &request, sizeof request, NULL, 0, 0);
    session->caught = code == TOWLINE_OK;
    return leave(session, code);
}

static int keep_info(towline_session *s)
{
    struct tw_local_opened opened;
    memcpy(&opened, s->connection.body, sizeof opened);
    size_t room = s->connection.length - sizeof opened;
    const char *text = (const char *)s->connection.body + sizeof opened;
    if (opened.text_length > room || opened.why_length > room - opened.text_length)
        return tw_client_fail(TOWLINE_INTERNAL, "an answer that cannot be understood");
    s->blind_spots = strndup(text, opened.text_length);
    s->why = strndup(text + opened.text_length, opened.why_length);
    if (!s->blind_spots || !s->why)
        return tw_client_fail(TOWLINE_RESOURCE_EXHAUSTED, "no memory");
    const uint32_t meaning = (opened.flags & TW_LOCAL_SAME_VALUE ? TOWLINE_SAME_VALUE : 0) |
                             (opened.flags & TW_LOCAL_WHOLE_PAGES ? TOWLINE_WHOLE_PAGES : 0) |
                             (opened.flags & TW_LOCAL_COUNTS_BYTES ? TOWLINE_COUNTS_BYTES : 0) |
                             (opened.flags & TW_LOCAL_LOADS ? TOWLINE_LOADS : 0);
    s->info = (struct towline_info){
        .session = opened.session,
        .pid = opened.pid,
        .granularity = opened.granularity,
        .flags = meaning,
        .blind_spots = s->blind_spots,
        .attachment = opened.flags & TW_LOCAL_INSTRUMENTED ? TOWLINE_INSTRUMENTED : TOWLINE_PROCESS,
        .sharing = opened.flags & TW_LOCAL_SHARING ? 1 : 0,
        .why = s->why};
    s->opened = true;
    return TOWLINE_OK;
}

/* An agent without privileges may need our leave to look into us (Yama): for this moment only. */
static int open_there(towline_session *s)
{
    struct tw_local_open request = {.pid = s->pid, .range_count = (uint32_t)s->range_count};
    bool leave_needed = s->pid == 0 && s->connection.agent_uid != 0;
    request.flags = s->flags | (s->caught ? TW_LOCAL_CAUGHT : 0);
    if (leave_needed)
        prctl(PR_SET_PTRACER, (unsigned long)s->connection.agent, 0, 0, 0);
    int code = tw_client_ask(&s->connection, TW_LOCAL_OPEN, &request, sizeof request, s->ranges,
                             s->range_count * sizeof *s->ranges, sizeof(struct tw_local_opened));
    if (leave_needed)
        prctl(PR_SET_PTRACER, 0, 0, 0, 0);
    return code ? code : keep_info(s);
}

static const char *name_of(const char *epoch)
{
    return epoch ? epoch : "default";
}

static struct epoch *epoch_find(towline_session *s, const char *name)
{
    for (unsigned i = 0; i < EPOCHS_MAX; i++)
        if (s->epochs[i].used && strcmp(s->epochs[i].name, name_of(name)) == 0)
            return &s->epochs[i];
    tw_client_fail(TOWLINE_NOT_FOUND, "epoch %.31s: not started", name_of(name));
    return NULL;
}

static int epoch_begin(towline_session *s, const char *name)
{
    struct tw_local_epoch request = {0};
    struct tw_local_epoch_begun begun;
    struct epoch *e = NULL;
    if (strlen(name) >= sizeof request.name)
        return tw_client_fail(TOWLINE_INVALID_ARGUMENT, "epoch: a name of at most 31 bytes");
    for (unsigned i = 0; i < EPOCHS_MAX && !e; i++)
        e = s->epochs[i].used ? NULL : &s->epochs[i];
    if (!e)
        return tw_client_fail(TOWLINE_RESOURCE_EXHAUSTED, "at most %u epochs", EPOCHS_MAX);
    memcpy(request.name, name, strlen(name));
    int code = tw_client_ask(&s->connection, TW_LOCAL_EPOCH, &request, sizeof request, NULL, 0,
                             sizeof begun);
    if (code)
        return code;
    memcpy(&begun, s->connection.body, sizeof begun);
    *e = (struct epoch){.used = true, .number = begun.epoch};
    memcpy(e->name, request.name, sizeof e->name);
    return TOWLINE_OK;
}

int towline_start(towline_session *session, const char *epoch)
{
    int code = enter(session);
    if (code)
        return code;
    if (!session->opened)
        code = open_there(session);
    return leave(session, code ? code : epoch_begin(session, name_of(epoch)));
}

/* A question about an epoch. */
static int ask_epoch(towline_session *s, enum tw_local_kind kind, const struct epoch *e,
                     uint32_t flags, size_t answer_min)
{
    const struct tw_local_epoch_ask request = {.epoch = e->number, .flags = flags};
    return tw_client_ask(&s->connection, kind, &request, sizeof request, NULL, 0, answer_min);
}

int towline_stop(towline_session *session, const char *epoch)
{
    int code = enter(session);
    if (code)
        return code;
    struct epoch *e = epoch_find(session, epoch);
    if (!e)
        return leave(session, TOWLINE_NOT_FOUND);
    code = ask_epoch(session, TW_LOCAL_EPOCH_CLOSE, e, 0, 0);
    if (!code)
        e->used = false;
    return leave(session, code);
}

/* ---- Reading -------------------------------------------------------------------------------- */

static int collect(towline_session *s, const struct epoch *e, uint32_t flags, uint64_t *cursor,
                   uint32_t *ended)
{
    struct tw_local_collected collected;
    int code = ask_epoch(s, TW_LOCAL_COLLECT, e, flags, sizeof collected);
    if (code)
        return code;
    memcpy(&collected, s->connection.body, sizeof collected);
    *cursor = collected.cursor;
    if (ended)
        *ended = collected.flags;
    return TOWLINE_OK;
}

/* `kind` is which list: TW_LOCAL_READ or TW_LOCAL_ACCESSED. */
static int read_some(towline_session *s, enum tw_local_kind kind, const struct epoch *e,
                     struct towline_lines *lines, size_t max, size_t *count, uint64_t *cursor)
{
    struct tw_local_lines_head head;
    const struct tw_local_read request = {.cursor = *cursor,
                                          .epoch = e->number,
                                          .max = max < TW_LOCAL_READ_MAX ? (uint32_t)max
                                                                         : TW_LOCAL_READ_MAX};
    int code = tw_client_ask(&s->connection, kind, &request, sizeof request, NULL, 0, sizeof head);
    if (code)
        return code;
    memcpy(&head, s->connection.body, sizeof head);
    if (head.count > request.max ||
        s->connection.length != sizeof head + head.count * sizeof *lines)
        return tw_client_fail(TOWLINE_INTERNAL, "an answer that cannot be understood");
    memcpy(lines, (const uint8_t *)s->connection.body + sizeof head, head.count * sizeof *lines);
    *count += head.count;
    *cursor = head.cursor;
    return TOWLINE_OK;
}

static int read_list(towline_session *s, enum tw_local_kind kind, const struct epoch *e,
                     struct towline_lines *lines, size_t max, size_t *count, uint64_t *cursor)
{
    int code = *cursor ? TOWLINE_OK : collect(s, e, 0, cursor, NULL);
    while (!code && *cursor && *count < max)
        code = read_some(s, kind, e, lines + *count, max - *count, count, cursor);
    return code;
}

/* Before the epoch is ended for nothing. */
static int loads_check(const towline_session *s)
{
    if (s->info.flags & TOWLINE_LOADS)
        return TOWLINE_OK;
    if (s->info.attachment == TOWLINE_PROCESS)
        return tw_client_fail(TOWLINE_UNIMPLEMENTED,
                              "accessed lines: loads are not seen of a program that was not "
                              "compiled for it");
    return tw_client_fail(TOWLINE_FAILED_PRECONDITION,
                          "accessed lines: the session was opened without");
}

static int read_named(towline_session *session, enum tw_local_kind kind, const char *epoch,
                      struct towline_lines *lines, size_t max, size_t *count, uint64_t *cursor)
{
    if (!lines || !max || !count || !cursor)
        return tw_client_fail(TOWLINE_INVALID_ARGUMENT,
                              "lines, max, count, cursor: none may be NULL or 0");
    *count = 0;
    int code = enter(session);
    if (code)
        return code;
    struct epoch *e = epoch_find(session, epoch);
    if (!e)
        return leave(session, TOWLINE_NOT_FOUND);
    if (kind == TW_LOCAL_ACCESSED)
        code = loads_check(session);
    return leave(session, code ? code : read_list(session, kind, e, lines, max, count, cursor));
}

int towline_dirty(towline_session *session, const char *epoch, struct towline_lines *lines,
                  size_t max, size_t *count, uint64_t *cursor)
{
    return read_named(session, TW_LOCAL_READ, epoch, lines, max, count, cursor);
}

int towline_accessed(towline_session *session, const char *epoch, struct towline_lines *lines,
                     size_t max, size_t *count, uint64_t *cursor)
{
    return read_named(session, TW_LOCAL_ACCESSED, epoch, lines, max, count, cursor);
}

int towline_info(towline_session *session, struct towline_info *out)
{
    int code = enter(session);
    if (code)
        return code;
    if (!session->opened)
        return leave(session, tw_client_fail(TOWLINE_FAILED_PRECONDITION, "not started yet"));
    *out = session->info;
    return leave(session, TOWLINE_OK);
}

/* ---- The meter ------------------------------------------------------------------------------ */

int towline_collect(towline_session *session, const char *epoch, uint32_t flags, uint64_t *cursor,
                    uint32_t *ended)
{
    uint64_t unused;
    int code = enter(session);
    if (code)
        return code;
    struct epoch *e = epoch_find(session, epoch);
    uint32_t paced = flags & TOWLINE_PACED ? TW_LOCAL_PACED : 0;
    session->connection.interruptible = (flags & TOWLINE_INTERRUPTIBLE) != 0;
    code = e ? collect(session, e, paced, cursor ? cursor : &unused, ended) : TOWLINE_NOT_FOUND;
    session->connection.interruptible = 0;
    return leave(session, code);
}

int towline_figures(towline_session *session, const char *epoch, struct towline_sums *last,
                    struct towline_sums *total, struct towline_hot *hot, size_t hot_max,
                    size_t *hot_count)
{
    struct tw_local_figures figures;
    int code = enter(session);
    if (code)
        return code;
    struct epoch *e = epoch_find(session, epoch);
    code = e ? ask_epoch(session, TW_LOCAL_FIGURES, e, 0, sizeof figures) : TOWLINE_NOT_FOUND;
    if (code)
        return leave(session, code);
    memcpy(&figures, session->connection.body, sizeof figures);
    if (session->connection.length != sizeof figures + figures.hot_count * sizeof *hot)
        return leave(session, tw_client_fail(TOWLINE_INTERNAL, "an answer of the wrong length"));
    size_t n = hot && hot_max < figures.hot_count ? hot_max : figures.hot_count;
    if (last)
        memcpy(last, &figures.last, sizeof *last);
    if (total)
        memcpy(total, &figures.total, sizeof *total);
    if (hot)
        memcpy(hot, (const uint8_t *)session->connection.body + sizeof figures, n * sizeof *hot);
    if (hot_count)
        *hot_count = n;
    return leave(session, TOWLINE_OK);
}

int towline_shared(towline_session *session, const char *epoch, struct towline_shared_line *lines,
                   size_t max, size_t *count, uint64_t *total)
{
    struct tw_local_shared_head head = {0};
    if (!count || (max > 0 && !lines))
        return tw_client_fail(TOWLINE_INVALID_ARGUMENT, "lines, count: NULL");
    *count = 0;
    int code = enter(session);
    if (code)
        return code;
    struct epoch *e = epoch_find(session, epoch);
    if (e && !session->info.sharing)
        code = tw_client_fail(TOWLINE_FAILED_PRECONDITION, "the session is without sharing");
    else
        code = e ? ask_epoch(session, TW_LOCAL_SHARED, e, 0, sizeof head) : TOWLINE_NOT_FOUND;
    if (code)
        return leave(session, code);
    memcpy(&head, session->connection.body, sizeof head);
    if (session->connection.length != sizeof head + head.count * sizeof(struct tw_local_shared))
        return leave(session, tw_client_fail(TOWLINE_INTERNAL, "an answer of the wrong length"));
    *count = head.count < max ? head.count : max;
    if (lines)
        memcpy(lines, (const uint8_t *)session->connection.body + sizeof head,
               *count * sizeof *lines);
    for (size_t i = 0; i < *count; i++)
        if (lines[i].thread_count > TOWLINE_SHARED_THREADS)
            lines[i].thread_count = TOWLINE_SHARED_THREADS;
    if (total)
        *total = head.total;
    return leave(session, TOWLINE_OK);
}

static void listed_copy(const struct tw_local_listed *from, struct towline_listed *to)
{
    *to = (struct towline_listed){
        .session = from->session,
        .pid = from->pid,
        .uid = from->uid,
        .ended = from->flags & TW_LOCAL_GONE ? 1 : 0,
        .exact = from->flags & TW_LOCAL_EXACT ? 1 : 0,
        .counts_bytes = from->flags & TW_LOCAL_COUNTS_BYTES ? 1 : 0,
        .attachment = from->flags & TW_LOCAL_INSTRUMENTED ? TOWLINE_INSTRUMENTED : TOWLINE_PROCESS,
        .sharing = from->flags & TW_LOCAL_SHARING ? 1 : 0,
        .accessed = from->flags & TW_LOCAL_LOADS ? 1 : 0,
        .shared = from->shared,
        .shared_falsely = from->shared_falsely};
    memcpy(&to->last, &from->last, sizeof to->last);
    memcpy(&to->total, &from->total, sizeof to->total);
    memcpy(to->name, from->name, sizeof to->name);
    to->name[sizeof to->name - 1] = 0;
}

int towline_list(const char *socket, struct towline_listed *out, size_t max, size_t *count)
{
    struct tw_client_connection c;
    if (!count || (max > 0 && !out))
        return tw_client_fail(TOWLINE_INVALID_ARGUMENT, "out, count: NULL");
    *count = 0;
    int code = tw_client_connect(&c, socket, 0);
    if (!code)
        code = tw_client_ask(&c, TW_LOCAL_LIST, NULL, 0, NULL, 0, 0);
    size_t n = code ? 0 : c.length / sizeof(struct tw_local_listed);
    for (; *count < n && *count < max; ++*count) {
        struct tw_local_listed one;
        memcpy(&one, (const uint8_t *)c.body + *count * sizeof one, sizeof one);
        listed_copy(&one, &out[*count]);
    }
    tw_client_disconnect(&c);
    return code;
}

int towline_guests(const char *socket, struct towline_guest *out, size_t max, size_t *count)
{
    struct tw_client_connection c;
    if (!count || (max > 0 && !out))
        return tw_client_fail(TOWLINE_INVALID_ARGUMENT, "out, count: NULL");
    *count = 0;
    int code = tw_client_connect(&c, socket, 0);
    if (!code)
        code = tw_client_ask(&c, TW_LOCAL_GUESTS, NULL, 0, NULL, 0, 0);
    size_t n = code ? 0 : c.length / sizeof *out;
    *count = n < max ? n : max;
    if (*count)
        memcpy(out, c.body, *count * sizeof *out);
    for (size_t i = 0; i < *count; i++) {
        out[i].name[sizeof out[i].name - 1] = 0;
        if (out[i].hot_count > TOWLINE_GUEST_HOT)
            out[i].hot_count = TOWLINE_GUEST_HOT;
    }
    tw_client_disconnect(&c);
    return code;
}
