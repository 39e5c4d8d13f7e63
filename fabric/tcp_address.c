#include "fabric/tcp.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum tw_code bad(const char *text, struct tw_error *err)
{
    return tw_fail(err, TW_INVALID_ARGUMENT, "fabric address",
                   "192.0.2.1:7202 or [2001:db8::1]:7202", text,
                   "not a numeric address with a port");
}

static bool parse_port(const char *text, in_port_t *port)
{
    char *end;
    const unsigned long n = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || n > UINT16_MAX)
        return false;
    *port = htons((uint16_t)n);
    return true;
}

enum tw_code tcp_address_parse(const char *text, union tcp_address *address, struct tw_error *err)
{
    char host[INET6_ADDRSTRLEN];
    memset(address, 0, sizeof *address);
    const char *colon = strrchr(text, ':');
    const bool v6 = text[0] == '[';
    if (!colon || (v6 && (colon == text || colon[-1] != ']')))
        return bad(text, err);
    const size_t length = (size_t)(colon - text) - (v6 ? 2 : 0);
    if (length >= sizeof host)
        return bad(text, err);
    memcpy(host, text + (v6 ? 1 : 0), length);
    host[length] = '\0';
    address->any.sa_family = v6 ? AF_INET6 : AF_INET;
    void *to = v6 ? (void *)&address->v6.sin6_addr : (void *)&address->v4.sin_addr;
    in_port_t *port = v6 ? &address->v6.sin6_port : &address->v4.sin_port;
    if (inet_pton(address->any.sa_family, host, to) != 1 || !parse_port(colon + 1, port))
        return bad(text, err);
    return TW_OK;
}

void tcp_address_format(const union tcp_address *a, char text[TW_FABRIC_ADDRESS_MAX])
{
    char host[INET6_ADDRSTRLEN] = "?";
    if (a->any.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &a->v6.sin6_addr, host, sizeof host);
        snprintf(text, TW_FABRIC_ADDRESS_MAX, "[%s]:%u", host, ntohs(a->v6.sin6_port));
    } else {
        inet_ntop(AF_INET, &a->v4.sin_addr, host, sizeof host);
        snprintf(text, TW_FABRIC_ADDRESS_MAX, "%s:%u", host, ntohs(a->v4.sin_port));
    }
}

bool tcp_address_is_loopback(const union tcp_address *a)
{
    if (a->any.sa_family == AF_INET)
        return ntohl(a->v4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
    const struct in6_addr *v6 = &a->v6.sin6_addr;
    return IN6_IS_ADDR_LOOPBACK(v6) ||
           (IN6_IS_ADDR_V4MAPPED(v6) && v6->s6_addr[12] == IN_LOOPBACKNET);
}

enum tw_code tcp_address_allow(const struct tcp_fabric *f, const union tcp_address *address,
                               struct tw_error *err)
{
    char text[TW_FABRIC_ADDRESS_MAX];
    if (f->tls || tcp_address_is_loopback(address))
        return TW_OK;
    tcp_address_format(address, text);
    return tw_fail(err, TW_FAILED_PRECONDITION, f->base.name,
                   "a loopback address, or certificates (tls)", text,
                   "without TLS the fabric stays on this host");
}

socklen_t tcp_address_size(const union tcp_address *a)
{
    return a->any.sa_family == AF_INET6 ? sizeof a->v6 : sizeof a->v4;
}
