/* Who is at the other end, and why somebody may not be. */
#include "fabric/tcp_tls.h"

#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include <stdio.h>
#include <string.h>

/* Whose a certificate is that need not be genuine: its bytes are a stranger's. */
static void describe(const X509 *certificate, const char *why, char *out, size_t size)
{
    struct tw_identity identity;
    char who[TW_IDENTITY_TEXT];
    if (certificate && tw_identity_read(certificate, &identity, NULL) == TW_OK)
        snprintf(out, size, "%.70s: %.50s", tw_identity_text(&identity, who), why);
    else
        snprintf(out, size, "one without role and name: %.60s", why);
}

int tcp_tls_judged(int good, X509_STORE_CTX *store)
{
    const SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct tcp_tls *t = SSL_get_app_data(ssl);
    if (!good && !t->blame[0]) /* the first that fails in the chain */
        describe(X509_STORE_CTX_get0_cert(store),
                 X509_verify_cert_error_string(X509_STORE_CTX_get_error(store)), t->blame,
                 sizeof t->blame);
    return good;
}

enum tw_code tcp_tls_admit(struct tcp_tls *t, const char *label, struct tw_error *err)
{
    char given[TW_IDENTITY_TEXT];
    struct tw_error why = {0};
    if (tw_tls_peer(t->trust, t->ssl, &t->peer, &why))
        return tw_fail(err, TW_UNAUTHENTICATED, label, "an agent's certificate", why.given, "%s",
                       why.what);
    if (t->peer.role != TW_ROLE_AGENT)
        return tw_fail(err, TW_PERMISSION_DENIED, label, "an agent's certificate",
                       tw_identity_text(&t->peer, given), "only agents speak here");
    return TW_OK;
}

enum tw_code tcp_tls_check_name(const struct tcp_tls *t, const char *label, const char *name,
                                struct tw_error *err)
{
    if (strcmp(t->peer.name, name) == 0)
        return TW_OK;
    return tw_fail(err, TW_PERMISSION_DENIED, label, t->peer.name, name,
                   "the hello gives another name than the certificate");
}

/* ---- Why TLS has ended ----------------------------------------------------------------------- */

static bool about_certificates(int alert)
{
    return (alert >= SSL_AD_BAD_CERTIFICATE && alert <= SSL_AD_CERTIFICATE_UNKNOWN) ||
           alert == SSL_AD_UNKNOWN_CA || alert == SSL_AD_ACCESS_DENIED ||
           alert == TLS13_AD_CERTIFICATE_REQUIRED;
}

/* The peer has told us, by an alert. */
static enum tw_code told(const struct tcp_tls *t, const char *label, int alert,
                         struct tw_error *err)
{
    struct tw_identity ours;
    char who[TW_IDENTITY_TEXT];
    tw_tls_identity(t->trust, &ours);
    const bool ours_it_is = about_certificates(alert);
    const char *text = alert == TLS13_AD_CERTIFICATE_REQUIRED ? "certificate required"
                                                              : SSL_alert_desc_string_long(alert);
    return tw_fail(err, TW_UNAUTHENTICATED, label,
                   ours_it_is ? "a certificate that the peer accepts" : NULL,
                   ours_it_is ? tw_identity_text(&ours, who) : NULL, "the peer ends TLS: %s", text);
}

enum tw_code tcp_tls_explain(const struct tcp_tls *t, const char *label, struct tw_error *err)
{
    const unsigned long number = ERR_peek_last_error();
    const int reason = ERR_GET_REASON(number);
    const char *text = ERR_reason_error_string(number);
    ERR_clear_error();
    if (t->flooded)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, label, "data", "key updates or the like",
                       "the peer sends TLS messages without end");
    if (t->blame[0])
        return tw_fail(err, TW_UNAUTHENTICATED, label,
                       "a valid certificate of the authority that we know", t->blame,
                       "the peer's certificate is refused");
    if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)
        return tw_fail(err, TW_UNAUTHENTICATED, label, "an agent's certificate", "none",
                       "the peer shows no certificate");
    if (reason > SSL_AD_REASON_OFFSET && reason < SSL_AD_REASON_OFFSET + 256)
        return told(t, label, reason - SSL_AD_REASON_OFFSET, err);
    return tw_fail(err, TW_UNAUTHENTICATED, label, "TLS 1.3", NULL, "TLS fails: %s",
                   text ? text : "no reason given");
}
