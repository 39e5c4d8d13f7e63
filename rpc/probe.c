#include "rpc/probe.h"

#include "rpc/tls.h"
#include "rpc/transport.h"

#include "base/clock.h"

#include <errno.h>
#include <netdb.h>
#include <nng/nng.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define TRIES 5u /* to hear why a server hangs up */

/* errno of a connection to `address`, 0 = it stands; *fd is then open. */
static int connect_try(const struct sockaddr *address, socklen_t size, uint64_t deadline_ns,
                       int *fd)
{
    int failed = 0;
    socklen_t length = sizeof failed;
    *fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*fd < 0)
        return errno;
    if (connect(*fd, address, size) != 0)
        failed = errno;
    if (failed == EINPROGRESS) {
        struct pollfd p = {.fd = *fd, .events = POLLOUT};
        if (poll(&p, 1, (int)tw_remaining_ms(deadline_ns)) <= 0)
            failed = ETIMEDOUT;
        else if (getsockopt(*fd, SOL_SOCKET, SO_ERROR, &failed, &length) != 0)
            failed = errno;
    }
    if (failed)
        close(*fd);
    return failed;
}

/* NULL: a connection stands, *fd is open. */
static const char *tcp_try(const nng_url *url, uint64_t deadline_ns, int *fd)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST}, *found;
    const char *host = strcmp(url->u_hostname, "localhost") == 0 ? "127.0.0.1" : url->u_hostname;
    if (getaddrinfo(host, url->u_port, &hints, &found) != 0)
        return "nobody was reached by that name";
    int failed = connect_try(found->ai_addr, found->ai_addrlen, deadline_ns, fd);
    freeaddrinfo(found);
    const char *reason = failed ? strerrordesc_np(failed) : NULL;
    return failed && !reason ? "unknown reason" : reason;
}

static const char *ipc_try(const nng_url *url, uint64_t deadline_ns, int *fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(url->u_path) >= sizeof address.sun_path)
        return "the path is too long";
    strcpy(address.sun_path, url->u_path);
    int failed = connect_try((const struct sockaddr *)&address, sizeof address, deadline_ns, fd);
    const char *reason = failed ? strerrordesc_np(failed) : NULL;
    return failed && !reason ? "unknown reason" : reason;
}

static const char *url_try(const char *text, uint64_t deadline_ns, int *fd)
{
    nng_url *url;
    const char *reason = "nobody answers";
    *fd = -1;
    if (nng_url_parse(&url, text) != 0)
        return "the URL cannot be read";
    if (strncmp(url->u_scheme, "tcp", 3) == 0 || strncmp(url->u_scheme, "tls+tcp", 7) == 0)
        reason = tcp_try(url, deadline_ns, fd);
    else if (strcmp(url->u_scheme, "ipc") == 0)
        reason = ipc_try(url, deadline_ns, fd);
    nng_url_free(url);
    return reason;
}

const char *tw_probe_reason(const char *url, unsigned ms)
{
    int fd;
    const char *reason = url_try(url, tw_now(&tw_monotonic) + ms * TW_MS, &fd);
    if (reason)
        return reason;
    close(fd);
    return "somebody listens there, but does not speak this protocol";
}

/* ---- TLS ------------------------------------------------------------------------------------ */

static bool io_wait(SSL *ssl, int result, int fd, uint64_t deadline_ns)
{
    int error = SSL_get_error(ssl, result);
    struct pollfd p = {.fd = fd, .events = error == SSL_ERROR_WANT_WRITE ? POLLOUT : POLLIN};
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
        return false;
    return poll(&p, 1, (int)tw_remaining_ms(deadline_ns)) > 0;
}

/* Handshake, then one byte: a server of TLS 1.3 judges our certificate after our handshake is
 * done, and says so where its first byte would be. */
static enum tw_code talk(struct tw_rpc_tls *tls, SSL *ssl, int fd, uint64_t deadline_ns,
                         bool *wordless, struct tw_error *err)
{
    struct tw_identity who;
    char byte, reason[TW_TLS_REASON];
    int result;
    while ((result = SSL_connect(ssl)) != 1 && io_wait(ssl, result, fd, deadline_ns))
        continue;
    if (result == 1) {
        enum tw_code code = tw_rpc_tls_check(tls, ssl, &who, err);
        if (code != TW_OK)
            return code;
        while ((result = SSL_read(ssl, &byte, 1)) != 1 && io_wait(ssl, result, fd, deadline_ns))
            continue;
    }
    int error = result == 1 ? SSL_ERROR_NONE : SSL_get_error(ssl, result);
    *wordless = error == SSL_ERROR_SYSCALL ||
                (error == SSL_ERROR_SSL &&
                 ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING);
    if (error == SSL_ERROR_SSL)
        return tw_fail(err, TW_UNAUTHENTICATED, "tls", NULL, NULL, "%s",
                       tw_tls_reason(ssl, reason));
    return TW_OK;
}

/* True: the server hung up without a word. What it has to say can be lost, when its process is too
 * busy to write the alert before it closes the connection. */
static bool tls_try(struct tw_rpc_tls *tls, int fd, uint64_t deadline_ns, struct tw_error *err)
{
    bool wordless = false;
    SSL *ssl = tw_rpc_tls_client(tls);
    tw_error_clear(err);
    if (ssl && SSL_set_fd(ssl, fd) == 1)
        talk(tls, ssl, fd, deadline_ns, &wordless, err);
    SSL_free(ssl);
    ERR_clear_error();
    return wordless;
}

enum tw_code tw_probe(const char *url, struct tw_rpc_tls *tls, const char *what, unsigned ms,
                      bool *hopeful, struct tw_error *err)
{
    int fd;
    uint64_t deadline_ns = tw_now(&tw_monotonic) + ms * TW_MS;
    struct tw_error why = {0};
    const char *reason = NULL;
    bool again = true;
    *hopeful = false;
    for (unsigned i = 0; again && i < TRIES; i++) {
        again = false;
        reason = url_try(url, deadline_ns, &fd);
        if (reason)
            continue;
        reason = "somebody listens there, but does not speak this protocol";
        if (tls)
            again = tls_try(tls, fd, deadline_ns, &why);
        *hopeful = why.code == TW_OK && !again;
        close(fd);
    }
    if (why.code == TW_OK)
        return tw_fail(err, TW_UNAVAILABLE, url, NULL, NULL, "no connection for %s: %s", what,
                       reason);
    return tw_fail(err, why.code, url, why.expected, why.given, "no connection for %s: %s", what,
                   why.what);
}
