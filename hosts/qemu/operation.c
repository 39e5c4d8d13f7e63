/* STOP, CONTINUE, SAVE_STATE, AWAIT_STATE and LOAD_STATE, each a walk through a few QMP commands.
 *
 * The device state travels by QEMU's own migration with x-ignore-shared: RAM stays in its file,
 * the stream holds the rest (a few hundred KiB). QEMU connects to a socket of ours to save, we
 * connect to one of QEMU's to load. All of this lies in the downtime of a migration: the moves
 * follow QEMU's replies and MIGRATION events, nothing polls but the wait for QEMU's run state,
 * which changes a moment after its event. */
#include "hosts/qemu/qemu_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define WORD       32 /* bytes of a status that we know */
#define RETRY_NS   TW_MS
#define FIRST_ROOM (1u << 20) /* bytes for a state that is about to come */

#define LOAD_AWAITED (TW_HOST_LOAD_STATE + 1u) /* QEMU listens for it already */

#define ENDS TW_MAY(TW_STEP_ENDED)

static const struct tw_state steps[TW_STEP_COUNT] = {
    [TW_STEP_IDLE] = {"idle",
                      TW_MAY(TW_STEP_STOPPING) | TW_MAY(TW_STEP_CONTINUING) |
                          TW_MAY(TW_STEP_SAVE_CLEARING) | TW_MAY(TW_STEP_AWAIT_CAPABILITIES) |
                          TW_MAY(TW_STEP_LOAD_CAPABILITIES) | TW_MAY(TW_STEP_LOAD_LISTENING),
                      "nothing under way", NULL},
    [TW_STEP_STOPPING] = {"stopping", ENDS, "waits for the answer to stop", NULL},
    [TW_STEP_CONTINUING] = {"continuing", TW_MAY(TW_STEP_CONTINUE_WAITING) | ENDS,
                            "waits for the answer to cont", NULL},
    [TW_STEP_CONTINUE_WAITING] = {"continue_waiting", TW_MAY(TW_STEP_CONTINUING) | ENDS,
                                  "a save that was broken off is not yet over in QEMU", NULL},
    [TW_STEP_SAVE_CLEARING] = {"save_clearing", TW_MAY(TW_STEP_SAVE_CAPABILITIES) | ENDS,
                               "waits until no earlier save is under way in QEMU", NULL},
    [TW_STEP_SAVE_CAPABILITIES] = {"save_capabilities", TW_MAY(TW_STEP_SAVE_STARTING) | ENDS,
                                   "RAM is left out of the stream", NULL},
    [TW_STEP_SAVE_STARTING] = {"save_starting", TW_MAY(TW_STEP_SAVE_STREAMING) | ENDS,
                               "waits for the answer to migrate", NULL},
    [TW_STEP_SAVE_STREAMING] = {"save_streaming", TW_MAY(TW_STEP_SAVE_SETTLING) | ENDS,
                                "reads the stream", NULL},
    [TW_STEP_SAVE_SETTLING] = {"save_settling", ENDS, "the stream is whole; run state follows",
                               NULL},
    [TW_STEP_AWAIT_CAPABILITIES] = {"await_capabilities", TW_MAY(TW_STEP_AWAIT_LISTENING) | ENDS,
                                    "RAM is left out of the stream", NULL},
    [TW_STEP_AWAIT_LISTENING] = {"await_listening", ENDS,
                                 "waits for the answer to migrate-incoming", NULL},
    [TW_STEP_LOAD_CAPABILITIES] = {"load_capabilities", TW_MAY(TW_STEP_LOAD_LISTENING) | ENDS,
                                   "RAM is left out of the stream", NULL},
    [TW_STEP_LOAD_LISTENING] = {"load_listening", TW_MAY(TW_STEP_LOAD_FEEDING) | ENDS,
                                "waits for the answer to migrate-incoming, unless it listens",
                                NULL},
    [TW_STEP_LOAD_FEEDING] = {"load_feeding", TW_MAY(TW_STEP_LOAD_SETTLING) | ENDS,
                              "writes the stream", NULL},
    [TW_STEP_LOAD_SETTLING] = {"load_settling", ENDS, "QEMU has the state; run state follows",
                               NULL},
    [TW_STEP_ENDED] = {"ended", TW_MAY(TW_STEP_IDLE), "the result waits to be taken", NULL},
};

const struct tw_machine_table tw_qemu_operation_table = {"qemu", steps, TW_STEP_COUNT};

static unsigned step_of(const struct tw_qemu *q)
{
    return q->operation.machine.state;
}

static bool is_saving(const struct tw_qemu *q)
{
    return step_of(q) >= TW_STEP_SAVE_CLEARING && step_of(q) <= TW_STEP_SAVE_SETTLING;
}

/* ---- Ends ------------------------------------------------------------------------------------ */

static void close_sockets(struct tw_qemu *q)
{
    struct tw_qemu_operation *o = &q->operation;
    if (o->listener >= 0)
        close(o->listener);
    if (o->stream >= 0)
        close(o->stream);
    o->listener = o->stream = -1;
    unlink(q->save_path);
    if (!q->listening)
        unlink(q->load_path);
}

static void end(struct tw_qemu *q, enum tw_code code, const char *why)
{
    struct tw_qemu_operation *o = &q->operation;
    if (code && is_saving(q) && tw_qmp_state_get(q->qmp) == TW_QMP_READY)
        tw_qmp_send(q->qmp, "migrate_cancel", NULL, tw_after(tw_now(q->clock), TW_SEC), NULL, NULL);
    close_sockets(q);
    o->command = 0;
    o->retry_ns = 0;
    o->feed = NULL;
    o->code = code;
    if (code) {
        free(o->data);
        o->data = NULL;
        o->size = o->capacity = 0;
    }
    tw_machine_move(&o->machine, TW_STEP_ENDED, why);
}

static void end_failed(struct tw_qemu *q)
{
    end(q, q->operation.err.code, q->operation.err.what);
}

/* Sends a command and takes the step in which its answer is awaited. */
static bool ask(struct tw_qemu *q, unsigned step, const char *command, json_t *arguments)
{
    struct tw_qemu_operation *o = &q->operation;
    o->completed = o->failed = false; /* what QEMU said before was about something earlier */
    if (tw_qmp_send(q->qmp, command, arguments, o->deadline_ns, &o->command, &o->err)) {
        end_failed(q);
        return false;
    }
    if (step != step_of(q))
        tw_machine_move(&o->machine, step, command);
    return true;
}

/* True when the awaited answer has come and is good. A bad one ends the operation. */
static bool answered(struct tw_qemu *q, json_t **result)
{
    struct tw_qemu_operation *o = &q->operation;
    enum tw_code code;
    if (o->command == 0 || !tw_qmp_take(q->qmp, o->command, result, &code, &o->err))
        return false;
    o->command = 0;
    if (code)
        end_failed(q);
    return code == TW_OK;
}

/* The word under `key` of the awaited answer, into `word`. */
static bool answered_word(struct tw_qemu *q, const char *key, char word[WORD])
{
    json_t *result = NULL;
    if (!answered(q, &result))
        return false;
    const char *text = json_string_value(json_object_get(result, key));
    snprintf(word, WORD, "%s", text ? text : "");
    json_decref(result);
    return true;
}

static json_t *capabilities(void)
{
    return json_pack("{s:[{s:s,s:b},{s:s,s:b}]}", "capabilities", "capability", "x-ignore-shared",
                     "state", 1, "capability", "events", "state", 1);
}

static json_t *uri(const char *path)
{
    return json_pack("{s:s+}", "uri", "unix:", path);
}

static struct sockaddr_un address_of(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, path, strnlen(path, sizeof address.sun_path - 1));
    return address;
}

static void watch(struct tw_qemu *q, int fd, unsigned events)
{
    struct epoll_event e = {.events = events};
    epoll_ctl(q->epoll_fd, EPOLL_CTL_ADD, fd, &e);
}

/* Asks again a moment later. */
static void retry(struct tw_qemu *q)
{
    q->operation.retry_ns = tw_after(tw_now(q->clock), RETRY_NS);
}

static bool retry_is_due(struct tw_qemu *q)
{
    struct tw_qemu_operation *o = &q->operation;
    if (o->retry_ns == 0 || tw_now(q->clock) < o->retry_ns)
        return false;
    o->retry_ns = 0;
    return true;
}

/* ---- CONTINUE -------------------------------------------------------------------------------- */

static void continuing(struct tw_qemu *q)
{
    struct tw_qemu_operation *o = &q->operation;
    enum tw_code code;
    if (!tw_qmp_take(q->qmp, o->command, NULL, &code, &o->err))
        return;
    o->command = 0;
    if (code == TW_FAILED_PRECONDITION) {
        o->refusal = o->err;
        ask(q, TW_STEP_CONTINUE_WAITING, "query-status", NULL);
    } else if (code) {
        end_failed(q);
    } else {
        q->status = TW_QEMU_RUNNING;
        q->saved = false;
        end(q, TW_OK, "answered");
    }
}

/* QEMU refuses to continue between the end of a save and its own notice of that end, which may come
 * between its refusal and its answer here: only a refusal outside of that time stands. */
static void continue_waiting(struct tw_qemu *q)
{
    struct tw_qemu_operation *o = &q->operation;
    char status[WORD];
    if (retry_is_due(q)) {
        ask(q, TW_STEP_CONTINUING, "cont", NULL);
    } else if (answered_word(q, "status", status)) {
        const bool in_between = strcmp(status, "finish-migrate") == 0;
        if (in_between) {
            retry(q);
        } else if (!o->past_save) {
            ask(q, TW_STEP_CONTINUING, "cont", NULL);
        } else {
            o->err = o->refusal;
            end_failed(q);
        }
        o->past_save = !in_between;
    }
}

/* ---- SAVE_STATE ------------------------------------------------------------------------------ */

static bool listen_for_state(struct tw_qemu *q)
{
    struct tw_qemu_operation *o = &q->operation;
    const struct sockaddr_un address = address_of(q->save_path);
    unlink(q->save_path);
    o->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (o->listener < 0 ||
        bind(o->listener, (const struct sockaddr *)&address, sizeof address) < 0 ||
        listen(o->listener, 1) < 0) {
        tw_fail_errno(&o->err, errno, q->where, "cannot listen for the device state");
        end_failed(q);
        return false;
    }
    watch(q, o->listener, EPOLLIN);
    return true;
}

static bool make_room(struct tw_qemu_operation *o)
{
    if (o->size < o->capacity)
        return true;
    const size_t capacity = o->capacity ? o->capacity * 2 : FIRST_ROOM;
    if (o->size >= TW_HOST_STATE_MAX)
        return false;
    uint8_t *grown = realloc(o->data, capacity);
    if (!grown)
        return false;
    o->data = grown;
    o->capacity = capacity;
    return true;
}

static void read_stream(struct tw_qemu *q)
{
    struct tw_qemu_operation *o = &q->operation;
    if (o->stream < 0 && o->listener >= 0) {
        o->stream = accept4(o->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (o->stream < 0)
            return;
        close(o->listener);
        o->listener = -1;
        watch(q, o->stream, EPOLLIN);
    }
    while (o->stream >= 0) {
        if (!make_room(o)) {
            tw_fail(&o->err, TW_RESOURCE_EXHAUSTED, q->where, "at most 64 MiB", NULL,
                    "device state is too large");
            end_failed(q);
            return;
        }
        const ssize_t n = recv(o->stream, o->data + o->size, o->capacity - o->size, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            close(o->stream);
            o->stream = -1;
            o->drained = true;
            return;
        }
        o->size += (size_t)n;
    }
}

static void fail_with_migration_error(struct tw_qemu *q, const char *what)
{
    struct tw_qemu_operation *o = &q->operation;
    tw_fail(&o->err, TW_ABORTED, q->where, NULL, NULL, "%s; QEMU's log may say why", what);
    end_failed(q);
}

/* An agent that died in the middle of a save may have left one under way in QEMU. */
static void save_clearing(struct tw_qemu *q)
{
    static const char *const busy[] = {"setup",           "active",     "device",
                                       "pre-switchover",  "cancelling", "postcopy-active",
                                       "postcopy-paused", "wait-unplug"};
    char status[WORD];
    if (retry_is_due(q))
        ask(q, TW_STEP_SAVE_CLEARING, "query-migrate", NULL);
    else if (answered_word(q, "status", status)) {
        for (unsigned i = 0; i < sizeof busy / sizeof busy[0]; i++) {
            if (strcmp(status, busy[i]))
                continue;
            tw_qmp_send(q->qmp, "migrate_cancel", NULL, q->operation.deadline_ns, NULL, NULL);
            retry(q);
            return;
        }
        ask(q, TW_STEP_SAVE_CAPABILITIES, "migrate-set-capabilities", capabilities());
    }
}

static void save_streaming(struct tw_qemu *q)
{
    struct tw_qemu_operation *o = &q->operation;
    read_stream(q);
    if (step_of(q) == TW_STEP_ENDED)
        return;
    if (o->failed)
        fail_with_migration_error(q, "QEMU could not save the device state");
    else if (o->drained && o->completed)
        ask(q, TW_STEP_SAVE_SETTLING, "query-status", NULL);
}

static void save_settling(struct tw_qemu *q)
{
    char status[WORD];
    if (retry_is_due(q)) {
        ask(q, TW_STEP_SAVE_SETTLING, "query-status", NULL);
    } else if (answered_word(q, "status", status)) {
        if (strcmp(status, "finish-migrate") == 0)
            retry(q); /* cont would be refused in this state */
        else if (q->operation.size == 0)
            fail_with_migration_error(q, "QEMU saved an empty device state");
        else {
            q->saved = true;
            end(q, TW_OK, status);
        }
    }
}

/* ---- LOAD_STATE ------------------------------------------------------------------------------ */

static bool connect_to_load(struct tw_qemu *q)
{
    struct tw_qemu_operation *o = &q->operation;
    const struct sockaddr_un address = address_of(q->load_path);
    q->listening = false; /* for one stream */
    o->stream = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (o->stream < 0 ||
        connect(o->stream, (const struct sockaddr *)&address, sizeof address) < 0) {
        tw_fail_errno(&o->err, errno, q->where, "cannot hand over the device state");
        end_failed(q);
        return false;
    }
    watch(q, o->stream, EPOLLOUT | EPOLLET); /* else it would be ready all through the settling */
    tw_machine_move(&o->machine, TW_STEP_LOAD_FEEDING, "connected");
    return true;
}

static void load_feeding(struct tw_qemu *q)
{
    struct tw_qemu_operation *o = &q->operation;
    while (o->fed < o->feed->size) {
        const ssize_t n = send(o->stream, o->feed->data + o->fed, o->feed->size - o->fed,
                               MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) {
            tw_fail_errno(&o->err, errno, q->where, "QEMU stopped taking the device state");
            end_failed(q);
            return;
        }
        o->fed += (size_t)n;
    }
    if (o->fed == o->feed->size && !o->drained) {
        o->drained = true;
        shutdown(o->stream, SHUT_WR); /* a state that was cut short ends here, not at a deadline */
    }
    if (o->failed)
        fail_with_migration_error(q, "QEMU refused the device state");
    else if (o->drained && o->completed)
        ask(q, TW_STEP_LOAD_SETTLING, "query-status", NULL);
}

static void load_settling(struct tw_qemu *q)
{
    char status[WORD];
    if (retry_is_due(q)) {
        ask(q, TW_STEP_LOAD_SETTLING, "query-status", NULL);
    } else if (answered_word(q, "status", status)) {
        if (strcmp(status, "inmigrate") == 0) {
            retry(q);
            return;
        }
        q->incoming = false;
        end(q, TW_OK, status);
    }
}

/* ---- Any operation --------------------------------------------------------------------------- */

static void advance(struct tw_qemu *q)
{
    struct tw_qemu_operation *o = &q->operation;
    json_t *result = NULL;
    switch ((enum tw_qemu_step)step_of(q)) {
    case TW_STEP_STOPPING:
        if (answered(q, NULL)) {
            q->status = TW_QEMU_PAUSED;
            end(q, TW_OK, "answered");
        }
        break;
    case TW_STEP_CONTINUING:
        continuing(q);
        break;
    case TW_STEP_CONTINUE_WAITING:
        continue_waiting(q);
        break;
    case TW_STEP_SAVE_CLEARING:
        save_clearing(q);
        break;
    case TW_STEP_SAVE_CAPABILITIES:
        if (answered(q, NULL) && listen_for_state(q))
            ask(q, TW_STEP_SAVE_STARTING, "migrate", uri(q->save_path));
        break;
    case TW_STEP_SAVE_STARTING:
        if (answered(q, NULL))
            tw_machine_move(&o->machine, TW_STEP_SAVE_STREAMING, "QEMU has begun");
        break;
    case TW_STEP_SAVE_STREAMING:
        save_streaming(q);
        break;
    case TW_STEP_SAVE_SETTLING:
        save_settling(q);
        break;
    case TW_STEP_AWAIT_CAPABILITIES:
        if (answered(q, NULL))
            ask(q, TW_STEP_AWAIT_LISTENING, "migrate-incoming", uri(q->load_path));
        break;
    case TW_STEP_AWAIT_LISTENING:
        if (answered(q, NULL)) {
            q->listening = true;
            end(q, TW_OK, "answered");
        }
        break;
    case TW_STEP_LOAD_CAPABILITIES:
        if (answered(q, NULL))
            ask(q, TW_STEP_LOAD_LISTENING, "migrate-incoming", uri(q->load_path));
        break;
    case TW_STEP_LOAD_LISTENING:
        if (q->listening || answered(q, NULL))
            connect_to_load(q);
        break;
    case TW_STEP_LOAD_FEEDING:
        load_feeding(q);
        break;
    case TW_STEP_LOAD_SETTLING:
        load_settling(q);
        break;
    case TW_STEP_IDLE:
    case TW_STEP_ENDED:
    case TW_STEP_COUNT:
        break;
    }
    json_decref(result);
}

static bool is_under_way(const struct tw_qemu *q)
{
    return step_of(q) != TW_STEP_IDLE && step_of(q) != TW_STEP_ENDED;
}

void tw_operation_step(struct tw_qemu *q)
{
    struct tw_qemu_operation *o = &q->operation;
    unsigned before;
    do {
        before = step_of(q);
        if (!is_under_way(q))
            return;
        advance(q);
    } while (step_of(q) != before);
    if (q->status == TW_QEMU_EXITED) {
        tw_fail(&o->err, TW_UNAVAILABLE, q->where, NULL, NULL, "QEMU ended: %s", q->process.reason);
        end_failed(q);
    } else if (tw_qmp_state_get(q->qmp) == TW_QMP_FAILED) {
        o->err = *tw_qmp_error(q->qmp);
        end_failed(q);
    } else if (tw_now(q->clock) >= o->deadline_ns) {
        tw_fail(&o->err, TW_DEADLINE_EXCEEDED, q->where, NULL, NULL, "not done in time (at %s)",
                tw_machine_state_name(&o->machine));
        end_failed(q);
    }
}

void tw_operation_event(struct tw_qemu *q, const char *name, const json_t *data)
{
    const char *status = json_string_value(json_object_get(data, "status"));
    if (strcmp(name, "MIGRATION") || !status)
        return;
    if (strcmp(status, "completed") == 0)
        q->operation.completed = true;
    if (strcmp(status, "failed") == 0 || strcmp(status, "cancelled") == 0)
        q->operation.failed = true;
}

static bool receives(enum tw_host_operation op)
{
    return op == TW_HOST_LOAD_STATE || op == TW_HOST_AWAIT_STATE;
}

static enum tw_code may_begin(const struct tw_qemu *q, enum tw_host_operation op,
                              const struct tw_host_state *state, struct tw_error *err)
{
    if (step_of(q) != TW_STEP_IDLE)
        return tw_fail(err, TW_FAILED_PRECONDITION, q->where, NULL, NULL,
                       "another operation is under way (%s)",
                       tw_machine_state_name(&q->operation.machine));
    if (q->status == TW_QEMU_EXITED)
        return tw_fail(err, TW_UNAVAILABLE, q->where, NULL, NULL, "QEMU ended: %s",
                       q->process.reason);
    if (q->status == TW_QEMU_STARTING)
        return tw_fail(err, TW_UNAVAILABLE, q->where, NULL, NULL, "QEMU is not ready yet");
    if (receives(op) && !q->incoming)
        return tw_fail(err, TW_FAILED_PRECONDITION, q->where, "an incoming machine", NULL,
                       "cannot load a state into a machine that has one");
    if (op == TW_HOST_AWAIT_STATE && q->listening)
        return tw_fail(err, TW_FAILED_PRECONDITION, q->where, NULL, NULL,
                       "the machine awaits its state already");
    if (!receives(op) && q->incoming)
        return tw_fail(err, TW_FAILED_PRECONDITION, q->where, "a loaded state", NULL,
                       "the machine still waits for its state");
    if (op == TW_HOST_SAVE_STATE && q->status != TW_QEMU_PAUSED)
        return tw_fail(err, TW_FAILED_PRECONDITION, q->where, "a stopped machine", NULL,
                       "cannot save the state of a running machine");
    if (op == TW_HOST_SAVE_STATE && q->saved)
        return tw_fail(err, TW_FAILED_PRECONDITION, q->where, "a machine that ran since", NULL,
                       "its state was saved already");
    if (op == TW_HOST_LOAD_STATE && (!state || !state->data || state->size == 0))
        return tw_fail(err, TW_INVALID_ARGUMENT, q->where, "a device state", "nothing",
                       "nothing to load");
    return TW_OK;
}

enum tw_code tw_operation_begin(struct tw_qemu *q, enum tw_host_operation op,
                                const struct tw_host_state *state, uint64_t deadline_ns,
                                struct tw_error *err)
{
    static const struct {
        unsigned step;
        const char *command;
    } first[] = {
        [TW_HOST_STOP] = {TW_STEP_STOPPING, "stop"},
        [TW_HOST_CONTINUE] = {TW_STEP_CONTINUING, "cont"},
        [TW_HOST_SAVE_STATE] = {TW_STEP_SAVE_CLEARING, "query-migrate"},
        [TW_HOST_AWAIT_STATE] = {TW_STEP_AWAIT_CAPABILITIES, "migrate-set-capabilities"},
        [TW_HOST_LOAD_STATE] = {TW_STEP_LOAD_CAPABILITIES, "migrate-set-capabilities"},
        [LOAD_AWAITED] = {TW_STEP_LOAD_LISTENING, "awaited"},
    };
    struct tw_qemu_operation *o = &q->operation;
    const unsigned way = op == TW_HOST_LOAD_STATE && q->listening ? LOAD_AWAITED : (unsigned)op;
    enum tw_code code = may_begin(q, op, state, err);
    if (code == TW_OK && way != LOAD_AWAITED)
        code = tw_qmp_send(q->qmp, first[way].command, receives(op) ? capabilities() : NULL,
                           deadline_ns, &o->command, err);
    if (code)
        return code;
    o->deadline_ns = deadline_ns;
    o->completed = o->failed = o->drained = o->past_save = false;
    o->feed = state;
    o->fed = 0;
    tw_error_clear(&o->err);
    tw_machine_move(&o->machine, first[way].step, first[way].command);
    return TW_OK;
}

bool tw_operation_take(struct tw_qemu *q, struct tw_host_state *state, enum tw_code *code,
                       struct tw_error *err)
{
    struct tw_qemu_operation *o = &q->operation;
    if (step_of(q) != TW_STEP_ENDED)
        return false;
    *code = o->code;
    if (err)
        *err = o->err;
    if (o->data && state)
        *state = (struct tw_host_state){.data = o->data, .size = o->size};
    else
        free(o->data);
    o->data = NULL;
    o->size = o->capacity = 0;
    tw_machine_move(&o->machine, TW_STEP_IDLE, "taken");
    return true;
}

uint64_t tw_operation_due_ns(const struct tw_qemu *q)
{
    if (!is_under_way(q))
        return TW_NEVER;
    const struct tw_qemu_operation *o = &q->operation;
    return o->retry_ns && o->retry_ns < o->deadline_ns ? o->retry_ns : o->deadline_ns;
}

void tw_operation_init(struct tw_qemu *q)
{
    q->operation = (struct tw_qemu_operation){.listener = -1, .stream = -1};
    tw_machine_init(&q->operation.machine, &tw_qemu_operation_table, q, NULL, NULL);
}

void tw_operation_close(struct tw_qemu *q)
{
    close_sockets(q);
    free(q->operation.data);
    q->operation.data = NULL;
}
