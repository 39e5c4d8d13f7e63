/* The TLS material of a process: its authority, its certificate, its key; kept current.
 *
 * One SSL_CTX serves both directions: TLS 1.3 only, the peer's certificate required and verified,
 * no session is ever resumed. Whoever opens a connection takes the present context, so a
 * connection keeps the material that it was opened with and new ones get the new.
 *
 * Thread-safe, but for tw_tls_watch, which is called once, by who opened it. */
#ifndef TOWLINE_PKI_TLS_H
#define TOWLINE_PKI_TLS_H

#include "config/config.h"
#include "pki/identity.h"

#include <stdbool.h>
#include <stdint.h>

struct ssl_ctx_st; /* OpenSSL's SSL_CTX and SSL */
struct ssl_st;

/* `tls:` in a configuration file. */
struct tw_tls_files {
    char ca[256];          /* PEM: the authorities that are trusted */
    char certificate[256]; /* PEM: ours, with those between it and the authority */
    char key[256];         /* PEM, no pass phrase, not readable for others */
    char crl[256];         /* PEM: what these authorities have revoked; empty = nobody asks */
};
#define TW_TLS_KEYS 4u
extern const struct tw_config_key tw_tls_keys[TW_TLS_KEYS]; /* of a struct tw_tls_files */

/* The files of a folder as `tow pki issue` makes it; ca.crl when it is there. INVALID_ARGUMENT:
 * path too long. */
enum tw_code tw_tls_files_in(const char *directory, struct tw_tls_files *files,
                             struct tw_error *err);
/* False when nothing is configured at all. */
bool tw_tls_files_given(const struct tw_tls_files *files);

struct tw_tls;

/* Reads and checks: the key belongs to the certificate, the certificate carries an identity.
 * Certificate and key may both be empty: a client that has none (and is refused by our servers).
 * One that is out of date is loaded, with a warning: the peer says no. */
enum tw_code tw_tls_open(const struct tw_tls_files *files, struct tw_tls **tls,
                         struct tw_error *err);
/* Gives back one of the holds, of which tw_tls_open yields the first; the last ends it. NULL is
 * fine. Connections that still run keep the context that they use. */
void tw_tls_close(struct tw_tls *tls);
void tw_tls_hold(struct tw_tls *tls);

/* Reads the files again. On failure the old material stays in use; a certificate of somebody else
 * is a failure. Either is logged. */
enum tw_code tw_tls_reload(struct tw_tls *tls, struct tw_error *err);
/* A thread that reloads when a file changes (looked at every second, and taken when nothing has
 * changed for a second), and warns once a day of an end that is less than 14 days away. */
enum tw_code tw_tls_watch(struct tw_tls *tls, struct tw_error *err);

/* The present context; the caller frees the reference (SSL_CTX_free). */
struct ssl_ctx_st *tw_tls_context(struct tw_tls *tls);
/* Grows by one with each successful reload; begins with 1. */
uint64_t tw_tls_generation(struct tw_tls *tls);
/* Our own; role NONE without a certificate. */
void tw_tls_identity(struct tw_tls *tls, struct tw_identity *identity);
/* Seconds until our certificate or the file's first authority ends, whichever is first; negative =
 * has ended. */
int64_t tw_tls_expires_s(struct tw_tls *tls);

/* Whose the other end of an established connection is. UNAUTHENTICATED when its certificate was
 * not verified, carries no identity, has run out or been revoked since, or is not trusted by the
 * *present* authorities (they may have changed since the handshake). */
enum tw_code tw_tls_peer(struct tw_tls *tls, const struct ssl_st *connection,
                         struct tw_identity *identity, struct tw_error *err);

/* Fails when our own certificate is not one of that role and, with a name, that name. */
enum tw_code tw_tls_expect_me(struct tw_tls *tls, enum tw_identity_role role, const char *name,
                              struct tw_error *err);

#define TW_TLS_REASON 160u
/* Why a handshake or a connection failed, for people: the reason of the certificate's refusal, or
 * OpenSSL's own. Empties OpenSSL's queue of the calling thread. Returns `buffer`. */
const char *tw_tls_reason(const struct ssl_st *connection, char buffer[TW_TLS_REASON]);

#endif
