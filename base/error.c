#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void copy_text(char *to, size_t size, const char *from)
{
    snprintf(to, size, "%s", from ? from : "");
}

static void fill(struct tw_error *err, enum tw_code code, const char *where, const char *expected,
                 const char *given)
{
    err->code = code;
    copy_text(err->where, sizeof err->where, where);
    copy_text(err->expected, sizeof err->expected, expected);
    copy_text(err->given, sizeof err->given, given);
}

enum tw_code tw_fail(struct tw_error *err, enum tw_code code, const char *where,
                     const char *expected, const char *given, const char *what, ...)
{
    if (!err)
        return code;
    fill(err, code, where, expected, given);
    va_list args;
    va_start(args, what);
    vsnprintf(err->what, sizeof err->what, what, args);
    va_end(args);
    return code;
}

static enum tw_code code_of_errno(int number)
{
    switch (number) {
    case ENOENT:
    case ESRCH:
    case ENODEV:
        return TW_NOT_FOUND;
    case EEXIST:
    case EADDRINUSE:
        return TW_ALREADY_EXISTS;
    case EACCES:
    case EPERM:
        return TW_PERMISSION_DENIED;
    case ENOSPC:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case EDQUOT:
        return TW_RESOURCE_EXHAUSTED;
    case EINVAL:
        return TW_INVALID_ARGUMENT;
    case ETIMEDOUT:
        return TW_DEADLINE_EXCEEDED;
    case ECONNREFUSED:
    case ECONNRESET:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EPIPE:
        return TW_UNAVAILABLE;
    case ENOSYS:
    case EOPNOTSUPP:
        return TW_UNIMPLEMENTED;
    default:
        return TW_INTERNAL;
    }
}

enum tw_code tw_fail_errno(struct tw_error *err, int number, const char *where, const char *what,
                           ...)
{
    enum tw_code code = code_of_errno(number);
    if (!err)
        return code;
    fill(err, code, where, NULL, NULL);
    va_list args;
    va_start(args, what);
    int n = vsnprintf(err->what, sizeof err->what, what, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof err->what)
        snprintf(err->what + n, sizeof err->what - (size_t)n, ": %s", strerror(number));
    return code;
}

const char *tw_error_text(const struct tw_error *err, char *buffer, size_t size)
{
    const char *sep = err->where[0] ? ": " : "";
    if (err->expected[0] && err->given[0])
        snprintf(buffer, size, "%s%s%s (expected %s, given %s)", err->where, sep, err->what,
                 err->expected, err->given);
    else if (err->expected[0])
        snprintf(buffer, size, "%s%s%s (expected %s)", err->where, sep, err->what, err->expected);
    else if (err->given[0])
        snprintf(buffer, size, "%s%s%s (given %s)", err->where, sep, err->what, err->given);
    else
        snprintf(buffer, size, "%s%s%s", err->where, sep, err->what);
    return buffer;
}

const char *tw_code_name(enum tw_code code)
{
    static const char *const names[] = {
        "OK",
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
        "UNAUTHENTICATED",
    };
    unsigned i = (unsigned)code;
    return i < sizeof names / sizeof *names ? names[i] : "UNKNOWN";
}

void tw_error_clear(struct tw_error *err)
{
    memset(err, 0, sizeof *err);
}
