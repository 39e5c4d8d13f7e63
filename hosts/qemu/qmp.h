/* QMP, QEMU's control protocol: a client that never blocks.
 *
 * Lines of JSON over a unix socket. The server greets, we negotiate, then commands go out with a
 * number each and replies come back with it; events come in between. The peer may be a QEMU that
 * its guest has taken over: lines are bounded, whatever is no valid message ends the connection.
 *
 * Drive it with tw_qmp_step() when its descriptor (added to the given epoll set) is ready and when
 * a deadline is due. One thread owns a client. */
#ifndef TOWLINE_HOSTS_QEMU_QMP_H
#define TOWLINE_HOSTS_QEMU_QMP_H

#include "base/clock.h"
#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TW_QMP_LINE_MAX     (1u << 20)  /* bytes of one message */
#define TW_QMP_OUT_MAX      (64u << 10) /* bytes of commands not yet taken by the socket */
#define TW_QMP_COMMANDS_MAX 8u          /* commands without a reply; QEMU itself stops at 8 */

/* ---- Lines out of a byte stream -------------------------------------------------------------- */

struct tw_qmp_lines {
    char *buffer; /* grows up to TW_QMP_LINE_MAX */
    size_t used, capacity;
};

/* Calls `line` for each line completed by these bytes (without its end; empty lines are skipped).
 * `line` may return false to stop: the rest is dropped. TW_RESOURCE_EXHAUSTED when a line grows
 * beyond the limit; the splitter is then of no more use. */
enum tw_code tw_qmp_lines_feed(struct tw_qmp_lines *lines, const char *bytes, size_t count,
                               bool (*line)(void *ctx, const char *text, size_t length), void *ctx,
                               struct tw_error *err);
void tw_qmp_lines_free(struct tw_qmp_lines *lines);

/* ---- The client ------------------------------------------------------------------------------ */

struct tw_qmp;

struct tw_qmp_config {
    const char *path; /* of the unix socket; it need not exist yet */
    const struct tw_clock *clock;
    uint64_t ready_deadline_ns; /* until the negotiation is over */
    int epoll_fd;               /* -1: the caller steps by time */
    void (*event)(void *ctx, const char *name, const json_t *data); /* may be NULL */
    void *ctx;
};

enum tw_qmp_state {
    TW_QMP_CONNECTING, /* the socket is not there yet, or nobody greets yet */
    TW_QMP_NEGOTIATING,
    TW_QMP_READY,
    TW_QMP_FAILED, /* see tw_qmp_error; every command has ended */
};

enum tw_code tw_qmp_open(const struct tw_qmp_config *config, struct tw_qmp **qmp,
                         struct tw_error *err);
void tw_qmp_close(struct tw_qmp *qmp); /* NULL is fine */
void tw_qmp_step(struct tw_qmp *qmp);

enum tw_qmp_state tw_qmp_state_get(const struct tw_qmp *qmp);
const struct tw_error *tw_qmp_error(const struct tw_qmp *qmp);

/* Sends a command; `arguments` (may be NULL) is taken over in any case. `id` gets its number; with
 * NULL nobody wants the answer. TW_UNAVAILABLE when not ready, TW_RESOURCE_EXHAUSTED when too much
 * is outstanding. */
enum tw_code tw_qmp_send(struct tw_qmp *qmp, const char *command, json_t *arguments,
                         uint64_t deadline_ns, uint64_t *id, struct tw_error *err);

/* True when the command has ended: *code says how, and *result (unless `result` is NULL) is the
 * answer, to be released with json_decref. Each number can be taken once. */
bool tw_qmp_take(struct tw_qmp *qmp, uint64_t id, json_t **result, enum tw_code *code,
                 struct tw_error *err);

#endif
