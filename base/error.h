/* Errors: a code and a text that names the thing, what was expected and what was given.
 *
 * Functions that can fail return `enum tw_code` (TW_OK = 0) and fill an optional `struct tw_error`.
 * An error travels up and is printed once, by whoever decides what happens next. Codes are those
 * of gRPC, with the same numbers, so that they cross the RPC boundary unchanged. */
#ifndef TOWLINE_BASE_ERROR_H
#define TOWLINE_BASE_ERROR_H

#include <stddef.h>

enum tw_code {
    TW_OK = 0,
    TW_CANCELLED = 1,
    TW_UNKNOWN = 2,
    TW_INVALID_ARGUMENT = 3,
    TW_DEADLINE_EXCEEDED = 4,
    TW_NOT_FOUND = 5,
    TW_ALREADY_EXISTS = 6,
    TW_PERMISSION_DENIED = 7,
    TW_RESOURCE_EXHAUSTED = 8,
    TW_FAILED_PRECONDITION = 9,
    TW_ABORTED = 10,
    TW_OUT_OF_RANGE = 11,
    TW_UNIMPLEMENTED = 12,
    TW_INTERNAL = 13,
    TW_UNAVAILABLE = 14,
    TW_DATA_LOSS = 15,
    TW_UNAUTHENTICATED = 16,
};

struct tw_error {
    enum tw_code code;
    char where[64];     /* the thing: "vm web-1", "agent.yaml:12", "chunk 4711 from node-b" */
    char what[192];     /* what went wrong, without a full stop */
    char expected[128]; /* empty when there is nothing to compare */
    char given[128];
};

/* Fills `err` (may be NULL) and returns `code`. `expected` and `given` may be NULL. */
enum tw_code tw_fail(struct tw_error *err, enum tw_code code, const char *where,
                     const char *expected, const char *given, const char *what, ...)
    __attribute__((format(printf, 6, 7)));

/* The same for a failed system call: appends the text of errno value `number` and maps it to a
 * code (ENOENT -> NOT_FOUND, ENOSPC and ENOMEM -> RESOURCE_EXHAUSTED, ...). */
enum tw_code tw_fail_errno(struct tw_error *err, int number, const char *where, const char *what,
                           ...) __attribute__((format(printf, 4, 5)));

/* "where: what (expected X, given Y)" into `buffer`; returns `buffer`. */
const char *tw_error_text(const struct tw_error *err, char *buffer, size_t size);

/* "NOT_FOUND" and the like; never NULL. */
const char *tw_code_name(enum tw_code code);

void tw_error_clear(struct tw_error *err);

#endif
