/* What every subcommand has in hand: the controller, the ways of output, the exit codes. */
#ifndef TOWLINE_CLI_TOW_H
#define TOWLINE_CLI_TOW_H

#include "base/error.h"
#include "rpc/rpc.h"

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdio.h>

#define TOW_CONTROLLER_DEFAULT "tls+tcp://127.0.0.1:7100"
#define TOW_CONTROLLER_VAR     "TOWLINE_CONTROLLER"

enum tow_exit {
    TOW_EXIT_OK = 0,
    TOW_EXIT_FAILED = 1,
    TOW_EXIT_USAGE = 2,
    TOW_EXIT_UNREACHABLE = 3,
    TOW_EXIT_NOT_FOUND = 4,
    TOW_EXIT_REFUSED = 5,
    TOW_EXIT_NOT_MOVED = 6,
    TOW_EXIT_DEADLINE = 7,
    TOW_EXIT_DENIED = 8,
    TOW_EXIT_INTERRUPTED = 130,
};

struct tow_exit_text {
    enum tow_exit status;
    const char *text;
};
/* Ends with a NULL text. */
extern const struct tow_exit_text tow_exit_texts[];
enum tow_exit tow_exit_of(enum tw_code code);

struct tow {
    const char *controller; /* URL */
    bool json;
    bool color_out; /* colour on standard output */
    bool color_err; /* colour on standard error */
    unsigned timeout_ms;
    bool timeout_given;
    struct tw_tls_files tls_files; /* all empty = none */
    bool insecure;                 /* plain text is meant */
    struct tw_tls *tls;            /* with the client */
    struct tw_rpc_client *client;  /* opened by the first call */
    FILE *out;
    FILE *err;
};

void tow_close(struct tow *tow);

/* One call to the controller, with tow->timeout_ms. Sent once: an operator hears at once that
 * nobody is there, and no operation is done twice. */
enum tw_code tow_call(struct tow *tow, const ProtobufCServiceDescriptor *service,
                      const char *method, const ProtobufCMessage *request,
                      ProtobufCMessage **response, struct tw_error *err);
enum tw_code tow_call_within(struct tow *tow, const ProtobufCServiceDescriptor *service,
                             const char *method, const ProtobufCMessage *request,
                             unsigned timeout_ms, ProtobufCMessage **response,
                             struct tw_error *err);

/* "tow: where: what (expected .., given ..)" on standard error; the exit status for it. */
int tow_fail(struct tow *tow, const struct tw_error *err);
/* The same for a wrong use of the command. */
int tow_usage(struct tow *tow, const char *where, const char *expected, const char *given,
              const char *what, ...) __attribute__((format(printf, 5, 6)));

/* A call and, on failure, its report. NULL = failed, *status is set. */
ProtobufCMessage *tow_ask(struct tow *tow, const ProtobufCServiceDescriptor *service,
                          const char *method, const ProtobufCMessage *request, int *status);

/* Prints the response as JSON when that was asked for (and says so). */
bool tow_print_json(struct tow *tow, const ProtobufCMessage *response);

/* For the char pointers of messages that are only read. */
static inline char *tow_text(const char *text)
{
    return (char *)(uintptr_t)text;
}

#endif
