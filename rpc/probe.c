#include "rpc/probe.h"

#include <errno.h>
#include <netdb.h>
#include <nng/nng.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* errno of a connection to `address`, 0 = it stands. */
static int connect_try(const struct sockaddr *address, socklen_t size, unsigned ms)
{
    int failed = 0;
    socklen_t length = sizeof failed;
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return errno;
    if (connect(fd, address, size) != 0)
        failed = errno;
    if (failed == EINPROGRESS) {
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        if (poll(&p, 1, (int)ms) <= 0)
            failed = ETIMEDOUT;
        else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &length) != 0)
            failed = errno;
    }
    close(fd);
    return failed;
}

static const char *reason_of(int failed)
{
    const char *text = failed ? strerrordesc_np(failed)
                              : "somebody listens there, but does not speak this protocol";
    return text ? text : "unknown reason";
}

static const char *tcp_reason(const nng_url *url, unsigned ms)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST}, *found;
    const char *host = strcmp(url->u_hostname, "localhost") == 0 ? "127.0.0.1" : url->u_hostname;
    if (getaddrinfo(host, url->u_port, &hints, &found) != 0)
        return "nobody was reached by that name";
    const char *reason = reason_of(connect_try(found->ai_addr, found->ai_addrlen, ms));
    freeaddrinfo(found);
    return reason;
}

static const char *ipc_reason(const nng_url *url, unsigned ms)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(url->u_path) >= sizeof address.sun_path)
        return "the path is too long";
    strcpy(address.sun_path, url->u_path);
    return reason_of(connect_try((const struct sockaddr *)&address, sizeof address, ms));
}

const char *tw_probe_reason(const char *text, unsigned ms)
{
    nng_url *url;
    const char *reason = "nobody answers";
    if (nng_url_parse(&url, text) != 0)
        return "the URL cannot be read";
    if (strncmp(url->u_scheme, "tcp", 3) == 0)
        reason = tcp_reason(url, ms);
    else if (strcmp(url->u_scheme, "ipc") == 0)
        reason = ipc_reason(url, ms);
    nng_url_free(url);
    return reason;
}
