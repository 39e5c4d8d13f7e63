/* Which URLs may be served or dialled. */
#include "rpc/rpc.h"

#include "rpc/transport.h"

#include <arpa/inet.h>
#include <nng/nng.h>
#include <string.h>

static bool loopback(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, host, &v4) == 1)
        return (ntohl(v4.s_addr) >> 24) == IN_LOOPBACKNET;
    if (inet_pton(AF_INET6, host, &v6) == 1)
        return IN6_IS_ADDR_LOOPBACK(&v6);
    return strcmp(host, "localhost") == 0;
}

static enum tw_code plain_check(const nng_url *url, const char *text, bool insecure,
                                struct tw_error *err)
{
    if (!loopback(url->u_hostname))
        return tw_fail(err, TW_INVALID_ARGUMENT, text, "tls+tcp://, or an address of loopback",
                       url->u_hostname, "plain text would leave this machine");
    if (!insecure)
        return tw_fail(err, TW_INVALID_ARGUMENT, text,
                       "tls+tcp://, or insecure: true in a configuration, --insecure of tow", NULL,
                       "plain text has to be asked for");
    return TW_OK;
}

enum tw_code tw_rpc_url_check(const char *text, bool has_tls, bool insecure, struct tw_error *err)
{
    nng_url *url;
    enum tw_code code = TW_OK;
    int failed = nng_url_parse(&url, text);
    if (failed)
        return tw_fail_nng(err, failed, text, "the URL cannot be read");
    if (strncmp(url->u_scheme, "tls+tcp", 7) == 0) {
        if (!has_tls)
            code = tw_fail(err, TW_INVALID_ARGUMENT, text, "files of authority, certificate, key",
                           "none", "TLS needs certificates");
    } else if (strncmp(url->u_scheme, "tcp", 3) == 0) {
        code = plain_check(url, text, insecure, err);
    } else if (strcmp(url->u_scheme, "ipc") != 0 && strcmp(url->u_scheme, "inproc") != 0) {
        code = tw_fail(err, TW_INVALID_ARGUMENT, text, "tls+tcp://, tcp://, ipc:// or inproc://",
                       url->u_scheme, "not a way for RPC");
    }
    nng_url_free(url);
    return code;
}
