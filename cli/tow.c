#include "cli/tow.h"

#include "cli/certificates.h"
#include "cli/format.h"
#include "cli/json.h"

#include <stdarg.h>
#include <string.h>

const struct tow_exit_text tow_exit_texts[] = {
    {TOW_EXIT_OK, "done"},
    {TOW_EXIT_FAILED, "the operation failed, or the controller is not ready"},
    {TOW_EXIT_USAGE, "wrong arguments, or a VM file that cannot be used; nothing was done"},
    {TOW_EXIT_UNREACHABLE, "the controller, or a host that it needs, cannot be reached"},
    {TOW_EXIT_NOT_FOUND, "no such host, VM or migration"},
    {TOW_EXIT_REFUSED, "refused in the present state: name taken, VM busy, no memory, ..."},
    {TOW_EXIT_NOT_MOVED, "the migration ended and the VM did not move"},
    {TOW_EXIT_DEADLINE, "no answer in time; the operation may still go on"},
    {TOW_EXIT_DENIED, "no certificate that is believed, or its role does not allow this"},
    {TOW_EXIT_INTERRUPTED, "interrupted while waiting; a migration goes on"},
    {TOW_EXIT_OK, NULL},
};

enum tow_exit tow_exit_of(enum tw_code code)
{
    switch (code) {
    case TW_OK:
        return TOW_EXIT_OK;
    case TW_INVALID_ARGUMENT:
    case TW_OUT_OF_RANGE:
        return TOW_EXIT_USAGE;
    case TW_UNAVAILABLE:
        return TOW_EXIT_UNREACHABLE;
    case TW_NOT_FOUND:
        return TOW_EXIT_NOT_FOUND;
    case TW_ALREADY_EXISTS:
    case TW_FAILED_PRECONDITION:
    case TW_RESOURCE_EXHAUSTED:
    case TW_ABORTED:
        return TOW_EXIT_REFUSED;
    case TW_PERMISSION_DENIED:
    case TW_UNAUTHENTICATED:
        return TOW_EXIT_DENIED;
    case TW_DEADLINE_EXCEEDED:
        return TOW_EXIT_DEADLINE;
    case TW_CANCELLED:
    case TW_UNKNOWN:
    case TW_UNIMPLEMENTED:
    case TW_INTERNAL:
    case TW_DATA_LOSS:
        break;
    }
    return TOW_EXIT_FAILED;
}

void tow_close(struct tow *tow)
{
    tw_rpc_client_close(tow->client);
    tw_tls_close(tow->tls);
    tow->client = NULL;
    tow->tls = NULL;
}

enum tw_code tow_call_within(struct tow *tow, const ProtobufCServiceDescriptor *service,
                             const char *method, const ProtobufCMessage *request,
                             unsigned timeout_ms, ProtobufCMessage **response, struct tw_error *err)
{
    enum tw_code code = TW_OK;
    *response = NULL;
    if (!tow->client)
        code = tow_client_open(tow, err);
    if (code != TW_OK)
        return code;
    return tw_rpc_call(tow->client, service, method, request, timeout_ms, TW_RPC_ONCE, response,
                       err);
}

enum tw_code tow_call(struct tow *tow, const ProtobufCServiceDescriptor *service,
                      const char *method, const ProtobufCMessage *request,
                      ProtobufCMessage **response, struct tw_error *err)
{
    return tow_call_within(tow, service, method, request, tow->timeout_ms, response, err);
}

int tow_fail(struct tow *tow, const struct tw_error *err)
{
    char text[640], safe[640];
    tw_error_text(err, text, sizeof text);
    fprintf(tow->err, "%stow:%s %s%s\n", tow_tone_begin(TOW_TONE_BAD, tow->color_err),
            tow_tone_end(TOW_TONE_BAD, tow->color_err),
            strcmp(err->where, tow->controller) == 0 ? "controller " : "",
            tow_safe_text(text, safe, sizeof safe));
    return (int)tow_exit_of(err->code);
}

int tow_usage(struct tow *tow, const char *where, const char *expected, const char *given,
              const char *what, ...)
{
    struct tw_error err;
    char text[192];
    va_list args;
    va_start(args, what);
    vsnprintf(text, sizeof text, what, args);
    va_end(args);
    tw_fail(&err, TW_INVALID_ARGUMENT, where, expected, given, "%s", text);
    return tow_fail(tow, &err);
}

ProtobufCMessage *tow_ask(struct tow *tow, const ProtobufCServiceDescriptor *service,
                          const char *method, const ProtobufCMessage *request, int *status)
{
    struct tw_error err = {0};
    ProtobufCMessage *response;
    *status = TOW_EXIT_OK;
    if (tow_call(tow, service, method, request, &response, &err) != TW_OK)
        *status = tow_fail(tow, &err);
    return response;
}

bool tow_print_json(struct tow *tow, const ProtobufCMessage *response)
{
    if (!tow->json)
        return false;
    tow_json_print(response, TOW_JSON_INDENTED, tow->out);
    fputc('\n', tow->out);
    return true;
}
