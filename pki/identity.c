#include "pki/identity.h"

#include <openssl/asn1.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define SCHEME "towline://"

static const char *const role_names[TW_ROLE_COUNT] = {"none", "operator", "viewer", "controller",
                                                      "agent"};

const char *tw_role_name(enum tw_identity_role role)
{
    return role < TW_ROLE_COUNT ? role_names[role] : role_names[TW_ROLE_NONE];
}

bool tw_role_parse(const char *text, enum tw_identity_role *role)
{
    for (unsigned i = TW_ROLE_NONE + 1; i < TW_ROLE_COUNT; i++) {
        if (strcmp(role_names[i], text) == 0) {
            *role = (enum tw_identity_role)i;
            return true;
        }
    }
    return false;
}

bool tw_identity_name_ok(const char *name)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789-";
    size_t length = strlen(name);
    return length > 0 && length < TW_IDENTITY_NAME && name[0] != '-' &&
           strspn(name, letters) == length;
}

const char *tw_identity_text(const struct tw_identity *identity, char *buffer)
{
    snprintf(buffer, TW_IDENTITY_TEXT, "%s%s%s", tw_role_name(identity->role),
             identity->name[0] ? " " : "", identity->name);
    return buffer;
}

/* "towline://ROLE/NAME" with nothing behind it. */
static bool uri_parse(const char *uri, size_t length, struct tw_identity *identity)
{
    char text[sizeof SCHEME + TW_IDENTITY_TEXT];
    if (length >= sizeof text || memchr(uri, 0, length))
        return false;
    memcpy(text, uri, length);
    text[length] = 0;
    char *role = text + strlen(SCHEME), *slash = strchr(role, '/');
    if (!slash)
        return false;
    *slash = 0;
    if (!tw_role_parse(role, &identity->role) || !tw_identity_name_ok(slash + 1))
        return false;
    snprintf(identity->name, sizeof identity->name, "%s", slash + 1);
    return true;
}

/* How many of the names are in our scheme; the last of them is read. -1 = one cannot be read. */
static int uris_read(const GENERAL_NAMES *names, struct tw_identity *identity)
{
    int found = 0;
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type != GEN_URI)
            continue;
        const char *uri = (const char *)ASN1_STRING_get0_data(name->d.uniformResourceIdentifier);
        size_t length = (size_t)ASN1_STRING_length(name->d.uniformResourceIdentifier);
        if (length < strlen(SCHEME) || memcmp(uri, SCHEME, strlen(SCHEME)) != 0)
            continue;
        if (!uri_parse(uri, length, identity))
            return -1;
        found++;
    }
    return found;
}

enum tw_code tw_identity_read(const X509 *certificate, struct tw_identity *identity,
                              struct tw_error *err)
{
    struct tm end;
    *identity = (struct tw_identity){0};
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    int found = names ? uris_read(names, identity) : 0;
    GENERAL_NAMES_free(names);
    if (found != 1) {
        *identity = (struct tw_identity){0};
        return tw_fail(err, TW_UNAUTHENTICATED, "certificate", "one URI " SCHEME "ROLE/NAME",
                       found < 0   ? "one that cannot be read"
                       : found > 0 ? "several"
                                   : "none",
                       "the certificate says nobody's name");
    }
    if (!ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &end))
        return tw_fail(err, TW_UNAUTHENTICATED, "certificate", NULL, NULL,
                       "the end of its validity cannot be read");
    identity->expires_unix_s = timegm(&end);
    return TW_OK;
}
