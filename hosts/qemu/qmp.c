#include "hosts/qemu/qmp.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define READS_PER_STEP 16 /* of 16 KiB: a chattering peer does not hold the thread */

struct command {
    uint64_t id; /* 0 = free */
    char name[48];
    uint64_t deadline_ns;
    bool forgotten; /* nobody takes the answer */
    bool ended;
    enum tw_code code;
    struct tw_error err;
    json_t *result;
};

struct tw_qmp {
    struct tw_qmp_config config;
    char *path;
    enum tw_qmp_state state;
    struct tw_error err;
    int fd;
    bool greeted;
    bool wants_out; /* EPOLLOUT is set */
    uint64_t next_id;
    uint64_t negotiation; /* number of qmp_capabilities */
    struct tw_qmp_lines lines;
    char *out;
    size_t out_used;
    struct command commands[TW_QMP_COMMANDS_MAX];
};

/* ---- Ends ------------------------------------------------------------------------------------ */

static void command_free(struct command *c)
{
    json_decref(c->result);
    *c = (struct command){0};
}

static void command_end(struct command *c, enum tw_code code, json_t *result)
{
    c->ended = true;
    c->code = code;
    c->result = json_incref(result);
    if (c->forgotten)
        command_free(c);
}

static void close_socket(struct tw_qmp *q)
{
    if (q->fd >= 0)
        close(q->fd);
    q->fd = -1;
    q->wants_out = false;
}

/* The connection is over; q->err says why. */
static void fail(struct tw_qmp *q)
{
    q->state = TW_QMP_FAILED;
    close_socket(q);
    for (unsigned i = 0; i < TW_QMP_COMMANDS_MAX; i++) {
        struct command *c = &q->commands[i];
        if (c->id == 0 || c->ended)
            continue;
        c->err = q->err;
        c->err.code = TW_UNAVAILABLE;
        command_end(c, TW_UNAVAILABLE, NULL);
    }
}

/* ---- Out ------------------------------------------------------------------------------------- */

static void watch(struct tw_qmp *q, int operation)
{
    if (q->config.epoll_fd < 0)
        return;
    struct epoll_event e = {.events = EPOLLIN | (q->wants_out ? (unsigned)EPOLLOUT : 0)};
    epoll_ctl(q->config.epoll_fd, operation, q->fd, &e);
}

static void flush(struct tw_qmp *q)
{
    while (q->out_used > 0 && q->fd >= 0) {
        const ssize_t n = send(q->fd, q->out, q->out_used, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN) {
            tw_fail_errno(&q->err, errno, q->path, "QMP connection lost while sending");
            fail(q);
            return;
        }
        if (n <= 0)
            break;
        q->out_used -= (size_t)n;
        memmove(q->out, q->out + n, q->out_used);
    }
    const bool wants_out = q->out_used > 0;
    if (wants_out != q->wants_out && q->fd >= 0) {
        q->wants_out = wants_out;
        watch(q, EPOLL_CTL_MOD);
    }
}

static struct command *free_command(struct tw_qmp *q)
{
    for (unsigned i = 0; i < TW_QMP_COMMANDS_MAX; i++)
        if (q->commands[i].id == 0)
            return &q->commands[i];
    return NULL;
}

static enum tw_code send_command(struct tw_qmp *q, const char *name, json_t *arguments,
                                 uint64_t deadline_ns, bool forgotten, uint64_t *id,
                                 struct tw_error *err)
{
    struct command *c = free_command(q);
    json_t *message = json_pack("{s:s, s:I}", "execute", name, "id", (json_int_t)q->next_id);
    if (message && arguments)
        json_object_set(message, "arguments", arguments);
    json_decref(arguments);
    char *text = message ? json_dumps(message, JSON_COMPACT) : NULL;
    json_decref(message);
    const size_t length = text ? strlen(text) : 0;
    if (!c || !text || length + 1 > TW_QMP_OUT_MAX - q->out_used) {
        free(text);
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, q->path, "at most 8 commands outstanding", NULL,
                       "QMP command %s cannot be queued", name);
    }
    memcpy(q->out + q->out_used, text, length);
    q->out[q->out_used + length] = '\n';
    q->out_used += length + 1;
    free(text);
    *c = (struct command){.id = q->next_id++, .deadline_ns = deadline_ns, .forgotten = forgotten};
    snprintf(c->name, sizeof c->name, "%s", name);
    if (id)
        *id = c->id;
    flush(q);
    return TW_OK;
}

enum tw_code tw_qmp_send(struct tw_qmp *qmp, const char *command, json_t *arguments,
                         uint64_t deadline_ns, uint64_t *id, struct tw_error *err)
{
    if (qmp->state != TW_QMP_READY) {
        json_decref(arguments);
        return tw_fail(err, TW_UNAVAILABLE, qmp->path, NULL, NULL,
                       "QMP is not connected, cannot send %s", command);
    }
    return send_command(qmp, command, arguments, deadline_ns, id == NULL, id, err);
}

bool tw_qmp_take(struct tw_qmp *qmp, uint64_t id, json_t **result, enum tw_code *code,
                 struct tw_error *err)
{
    for (unsigned i = 0; i < TW_QMP_COMMANDS_MAX; i++) {
        struct command *c = &qmp->commands[i];
        if (c->id != id || id == 0)
            continue;
        if (!c->ended)
            return false;
        *code = c->code;
        if (err)
            *err = c->err;
        if (result)
            *result = json_incref(c->result);
        command_free(c);
        return true;
    }
    *code = tw_fail(err, TW_INTERNAL, qmp->path, NULL, NULL, "no such QMP command");
    return true;
}

/* ---- In -------------------------------------------------------------------------------------- */

static bool reject(struct tw_qmp *q, const char *what, const char *given)
{
    tw_fail(&q->err, TW_DATA_LOSS, q->path, "a QMP message", given, "%s", what);
    fail(q);
    return false;
}

static void refused_by_qemu(struct command *c, const json_t *error)
{
    const char *class = json_string_value(json_object_get(error, "class"));
    const char *text = json_string_value(json_object_get(error, "desc"));
    enum tw_code code = TW_FAILED_PRECONDITION;
    if (class && strcmp(class, "CommandNotFound") == 0)
        code = TW_UNIMPLEMENTED;
    else if (class && strcmp(class, "DeviceNotFound") == 0)
        code = TW_NOT_FOUND;
    tw_fail(&c->err, code, "QEMU", NULL, NULL, "%s: %s", c->name, text ? text : "no reason given");
    command_end(c, code, NULL);
}

static bool on_reply(struct tw_qmp *q, const json_t *message)
{
    const json_t *id = json_object_get(message, "id");
    json_t *result = json_object_get(message, "return");
    const json_t *error = json_object_get(message, "error");
    if (!json_is_integer(id)) {
        const char *text = json_string_value(json_object_get(error, "desc"));
        return reject(q, "reply without a number", text ? text : "no error text");
    }
    for (unsigned i = 0; i < TW_QMP_COMMANDS_MAX; i++) {
        struct command *c = &q->commands[i];
        if (c->id == 0 || c->ended || c->id != (uint64_t)json_integer_value(id))
            continue;
        const bool negotiation = c->id == q->negotiation;
        if (error)
            refused_by_qemu(c, error);
        else
            command_end(c, TW_OK, result);
        if (negotiation && error)
            return reject(q, "negotiation refused", "an error");
        if (negotiation)
            q->state = TW_QMP_READY;
        return true;
    }
    return true; /* late: its command was given up */
}

static bool on_message(struct tw_qmp *q, const json_t *message)
{
    if (!json_is_object(message))
        return reject(q, "message is not an object", NULL);
    const json_t *event = json_object_get(message, "event");
    if (json_is_string(event)) {
        if (q->config.event)
            q->config.event(q->config.ctx, json_string_value(event),
                            json_object_get(message, "data"));
        return q->state != TW_QMP_FAILED;
    }
    if (!q->greeted) {
        if (!json_is_object(json_object_get(message, "QMP")))
            return reject(q, "no greeting", NULL);
        q->greeted = true;
        q->state = TW_QMP_NEGOTIATING;
        if (send_command(q, "qmp_capabilities", NULL, q->config.ready_deadline_ns, true,
                         &q->negotiation, &q->err)) {
            fail(q);
            return false;
        }
        return q->state != TW_QMP_FAILED;
    }
    if (json_object_get(message, "return") || json_object_get(message, "error"))
        return on_reply(q, message);
    return reject(q, "message is neither event nor reply", NULL);
}

static bool on_line(void *ctx, const char *text, size_t length)
{
    struct tw_qmp *q = ctx;
    json_error_t why;
    json_t *message = json_loadb(text, length, JSON_REJECT_DUPLICATES, &why);
    if (!message)
        return reject(q, "message is not JSON", why.text);
    const bool go_on = on_message(q, message);
    json_decref(message);
    return go_on;
}

static void receive(struct tw_qmp *q)
{
    char bytes[16384];
    for (int i = 0; i < READS_PER_STEP && q->fd >= 0; i++) {
        const ssize_t n = recv(q->fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0)
            tw_fail_errno(&q->err, errno, q->path, "QMP connection lost");
        if (n == 0)
            tw_fail(&q->err, TW_UNAVAILABLE, q->path, NULL, NULL, "QEMU closed the QMP connection");
        if (n <= 0 || tw_qmp_lines_feed(&q->lines, bytes, (size_t)n, on_line, q, &q->err)) {
            fail(q);
            return;
        }
    }
}

/* ---- Connection ------------------------------------------------------------------------------ */

static void try_connect(struct tw_qmp *q)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, q->path, strnlen(q->path, sizeof address.sun_path - 1));
    q->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (q->fd < 0)
        return; /* short of descriptors: the next step tries again, until the deadline */
    if (connect(q->fd, (struct sockaddr *)&address, sizeof address) < 0) {
        close_socket(q); /* not there yet, or its one place is taken */
        return;
    }
    watch(q, EPOLL_CTL_ADD);
}

static void check_deadlines(struct tw_qmp *q)
{
    const uint64_t now = tw_now(q->config.clock);
    if (q->state < TW_QMP_READY && now >= q->config.ready_deadline_ns) {
        tw_fail(&q->err, TW_DEADLINE_EXCEEDED, q->path, NULL, NULL,
                q->fd < 0 ? "no QMP server at the socket" : "QMP server did not greet in time");
        fail(q);
        return;
    }
    for (unsigned i = 0; i < TW_QMP_COMMANDS_MAX; i++) {
        struct command *c = &q->commands[i];
        if (c->id == 0 || c->ended || now < c->deadline_ns)
            continue;
        tw_fail(&c->err, TW_DEADLINE_EXCEEDED, "QEMU", NULL, NULL, "no answer to %s in time",
                c->name);
        command_end(c, TW_DEADLINE_EXCEEDED, NULL);
    }
}

enum tw_code tw_qmp_open(const struct tw_qmp_config *config, struct tw_qmp **qmp,
                         struct tw_error *err)
{
    struct sockaddr_un address;
    if (strlen(config->path) >= sizeof address.sun_path)
        return tw_fail(err, TW_INVALID_ARGUMENT, "QMP socket", "a path of at most 107 bytes",
                       config->path, "path too long");
    struct tw_qmp *q = calloc(1, sizeof *q);
    if (q) {
        q->path = strdup(config->path);
        q->out = malloc(TW_QMP_OUT_MAX);
    }
    if (!q || !q->path || !q->out) {
        if (q) {
            free(q->path);
            free(q->out);
        }
        free(q);
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, config->path, NULL, NULL, "out of memory");
    }
    q->config = *config;
    q->config.path = q->path;
    q->fd = -1;
    q->next_id = 1;
    q->state = TW_QMP_CONNECTING;
    try_connect(q);
    *qmp = q;
    return TW_OK;
}

void tw_qmp_close(struct tw_qmp *qmp)
{
    if (!qmp)
        return;
    close_socket(qmp);
    for (unsigned i = 0; i < TW_QMP_COMMANDS_MAX; i++)
        command_free(&qmp->commands[i]);
    tw_qmp_lines_free(&qmp->lines);
    free(qmp->out);
    free(qmp->path);
    free(qmp);
}

void tw_qmp_step(struct tw_qmp *qmp)
{
    if (qmp->state == TW_QMP_FAILED)
        return;
    if (qmp->fd < 0)
        try_connect(qmp);
    if (qmp->fd >= 0)
        receive(qmp);
    if (qmp->fd >= 0 && qmp->out_used > 0)
        flush(qmp);
    if (qmp->state != TW_QMP_FAILED)
        check_deadlines(qmp);
}

enum tw_qmp_state tw_qmp_state_get(const struct tw_qmp *qmp)
{
    return qmp->state;
}

const struct tw_error *tw_qmp_error(const struct tw_qmp *qmp)
{
    return &qmp->err;
}
