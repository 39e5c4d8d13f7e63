/* TLS 1.3 on the tcp back end's sockets, by OpenSSL. For the back end's own files and tests.
 *
 * OpenSSL never sees a socket: it is a codec between two bounded buffers. A turn of reading takes
 * bytes off the socket once and hands out all that they decrypt to, so nothing that epoll cannot
 * see is left behind; a turn of writing seals as many records as there is room for and sends them
 * by one call. Kernel TLS would need the socket in OpenSSL's hands and is not used.
 *
 * Each side shows a certificate, and the peer's must come from the authority, be valid now, and be
 * an agent's. No tickets, no resumption, no early data: every socket is a full handshake. What a
 * peer sends behind it that is not data (key updates, tickets) is counted and bounded. */
#ifndef TOWLINE_FABRIC_TCP_TLS_H
#define TOWLINE_FABRIC_TCP_TLS_H

#include "pki/tls.h"

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define TCP_TLS_IN     (64u << 10) /* bytes taken off the socket at once */
#define TCP_TLS_FIRST  0x16u       /* the first byte of a TLS handshake; no frame begins so */
#define TCP_TLS_RECORD 16384u      /* bytes of data in a record at most */
#define TCP_TLS_SLACK  1024u       /* what a record is longer, and answers to key updates */
#define TCP_TLS_OUT    (9 * (TCP_TLS_RECORD + TCP_TLS_SLACK)) /* the longest frame, sealed */
#define TCP_TLS_REKEY  (UINT64_C(64) << 30) /* bytes under one key: below RFC 8446, 5.5 */

/* One socket's TLS. */
struct tcp_tls {
    SSL *ssl;
    struct tw_tls *trust;     /* ours and the authority; outlives us */
    bool heard;               /* the peer's first bytes were TLS */
    bool established;         /* the handshake is over */
    bool flooded;             /* the peer sends messages without end, no data */
    char blame[128];          /* the certificate that did not verify: whose, and why */
    struct tw_error why;      /* of the last EPROTO */
    struct tw_identity peer;  /* once admitted */
    uint64_t received;        /* bytes of data */
    uint64_t messages;        /* of the peer behind the handshake */
    uint64_t sealed;          /* bytes of data under the present key */
    uint64_t rekey_bytes;     /* as many are allowed */
    uint32_t in_at, in_end;   /* arrived, not yet decrypted */
    uint32_t out_at, out_end; /* sealed, not yet sent */
    uint8_t in[TCP_TLS_IN];
    uint8_t out[TCP_TLS_OUT];
};

/* ---- tcp_tls_peer.c -------------------------------------------------------------------------- */

/* After the handshake: the peer must be an agent; notes its name. */
enum tw_code tcp_tls_admit(struct tcp_tls *tls, const char *label, struct tw_error *err);
/* Then: it must be who its hello says. */
enum tw_code tcp_tls_check_name(const struct tcp_tls *tls, const char *label, const char *name,
                                struct tw_error *err);
/* OpenSSL's word on a certificate of the peer's chain; remembers whom to blame. */
int tcp_tls_judged(int good, X509_STORE_CTX *store);
/* Why TLS has failed just now. Empties OpenSSL's queue of errors. */
enum tw_code tcp_tls_explain(const struct tcp_tls *tls, const char *label, struct tw_error *err);

/* ---- tcp_tls.c ------------------------------------------------------------------------------- */

struct tcp_tls *tcp_tls_new(struct tw_tls *trust, bool server, struct tw_error *err);
void tcp_tls_free(struct tcp_tls *tls); /* NULL is fine */

/* One step. TW_UNAVAILABLE: the peer's turn. Anything else but TW_OK: failed; what the protocol
 * allows to tell the peer has been sent. */
enum tw_code tcp_tls_handshake(struct tcp_tls *tls, int fd, const char *label,
                               struct tw_error *err);

/* As recv() and sendmsg(); errno EPROTO: see tls->why. What send has taken may still have to leave:
 * while tcp_tls_unsent(), call it again (with nothing) when the socket can be written. */
ssize_t tcp_tls_recv(struct tcp_tls *tls, int fd, void *into, size_t size);
ssize_t tcp_tls_send(struct tcp_tls *tls, int fd, const struct iovec *parts, unsigned count);

/* Data may be had without the socket's help. False for NULL, as the next. */
bool tcp_tls_pending(const struct tcp_tls *tls);
bool tcp_tls_unsent(const struct tcp_tls *tls);

/* Tells the peer that no more data follows, if that goes without waiting. NULL is fine. */
void tcp_tls_end(struct tcp_tls *tls, int fd);

#endif
