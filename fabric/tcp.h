/* The tcp back end, for its own files only.
 *
 * A connection is two TCP connections, one a lane, so that nothing urgent waits behind bulk in a
 * socket's buffer. The urgent one comes first and carries the handshake; ACCEPT brings a random id,
 * with which the client's second one joins. Everything is non-blocking. With certificates
 * configured, both are TLS (tcp_tls.h) from the first byte on.
 *
 * Two epoll sets: the inner one holds the bulk sockets, the outer one everything else and the inner
 * one. A round of poll serves all that is urgent, then one bulk socket, once. A turn of bulk is one
 * frame, in and out: so long an urgent one may have to wait. */
#ifndef TOWLINE_FABRIC_TCP_H
#define TOWLINE_FABRIC_TCP_H

#include "fabric/backend.h"
#include "fabric/tcp_tls.h"

#include <netinet/in.h>
#include <sys/socket.h>

#define TCP_SMALL       2048u /* frames up to here are copied together and sent by one call */
#define TCP_OUT         8192u
#define TCP_PENDING_MAX 128u /* sockets that have not said who they are */

/* First member of everything that an epoll event may point to. */
enum tcp_tag { TCP_STREAM, TCP_PENDING, TCP_LISTENER, TCP_BULK, TCP_WAKE };

union tcp_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* One lane's socket. */
struct tcp_stream {
    enum tcp_tag tag;
    enum tw_lane lane;
    struct tcp_conn *conn;
    int fd;              /* -1 = none */
    struct tcp_tls *tls; /* NULL = plain */
    bool connecting;
    bool shaking;    /* TLS is being set up */
    bool broken;     /* sending has failed; its reading end will tell why */
    bool deaf;       /* not to be read from yet */
    uint32_t armed;  /* what epoll watches for */
    uint32_t in_end; /* bytes in `in`; the first begins a frame */
    uint8_t *in;     /* TW_FRAME_MAX bytes */
    uint8_t out[TCP_OUT];
    uint32_t out_at, out_end;
    const uint8_t *direct; /* a long frame, sent from where it lies, after `out` */
    uint32_t direct_left;
};

struct tcp_conn {
    struct tw_conn base;
    union tcp_address address; /* client: of the peer */
    struct tcp_stream streams[TW_LANES];
};

/* A socket that was accepted and whose first frame is awaited. */
struct tcp_pending {
    enum tcp_tag tag;
    int fd;              /* -1 = free entry */
    struct tcp_tls *tls; /* NULL = plain */
    bool secure;         /* the TLS handshake is over */
    uint64_t due_ns;
    uint32_t got;
    uint8_t in[TW_FRAME_HEADER + TW_HELLO_BYTES];
    char label[TW_FABRIC_ADDRESS_MAX];
};

struct tcp_fabric {
    struct tw_fabric base;
    int outer, inner; /* epoll sets */
    int listener;     /* -1 = none */
    bool listening;   /* false: rests until resume_ns, for want of descriptors */
    uint64_t resume_ns;
    enum tcp_tag listener_tag, bulk_tag, wake_tag;
    struct tcp_pending pending[TCP_PENDING_MAX];
    struct tw_tls *tls;      /* NULL = plain */
    struct tw_error refusal; /* of the last that got no connection here */
    uint64_t refusals;
    uint64_t refusals_told; /* of them, in the log or counted there */
    uint64_t tell_ns;       /* when the log may hear of one again */
};

static inline struct tcp_fabric *tcp_fabric_of(const struct tw_conn *conn)
{
    return (struct tcp_fabric *)conn->fabric;
}

/* tcp_address.c */
enum tw_code tcp_address_parse(const char *text, union tcp_address *address, struct tw_error *err);
void tcp_address_format(const union tcp_address *address, char text[TW_FABRIC_ADDRESS_MAX]);
socklen_t tcp_address_size(const union tcp_address *address);
bool tcp_address_is_loopback(const union tcp_address *address);
/* Plain text is for loopback alone. */
enum tw_code tcp_address_allow(const struct tcp_fabric *fabric, const union tcp_address *address,
                               struct tw_error *err);

/* tcp_stream.c */
void tcp_stream_init(struct tcp_stream *stream, struct tcp_conn *conn, enum tw_lane lane);
/* Takes over a connected (or connecting) socket, with stream->tls if that is set. On failure the
 * socket is closed. */
enum tw_code tcp_stream_open(struct tcp_stream *stream, int fd, bool connecting,
                             struct tw_error *err);
void tcp_stream_close(struct tcp_stream *stream);
/* Sends what still goes without waiting. */
void tcp_stream_end(struct tcp_stream *stream);
void tcp_stream_listen(struct tcp_stream *stream); /* no longer deaf */
void tcp_stream_write(struct tcp_stream *stream);
/* Takes what TLS has already decrypted, or could, of which epoll knows nothing. */
void tcp_stream_pump(struct tcp_stream *stream);
void tcp_stream_event(struct tcp_stream *stream, uint32_t events);

/* tcp_listen.c */
enum tw_code tcp_listen(struct tw_fabric *base, const char *address, struct tw_error *err);
void tcp_accept(struct tcp_fabric *fabric);
void tcp_pending_event(struct tcp_fabric *fabric, struct tcp_pending *pending);
void tcp_pending_close(struct tcp_pending *pending);
/* Closes those that took too long, wakes a resting listener. */
void tcp_listen_tick(struct tcp_fabric *fabric, uint64_t now_ns);
uint64_t tcp_listen_tick_next(const struct tcp_fabric *fabric);

/* A new non-blocking socket's options. */
void tcp_tune(int fd);

#endif
