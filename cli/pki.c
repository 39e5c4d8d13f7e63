/* tow pki: certificates for agents, controller and people. Asks no controller. */
#include "cli/command.h"
#include "cli/format.h"
#include "cli/options.h"

#include "pki/issue.h"
#include "pki/revoke.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define DAY_S          INT64_C(86400)
#define DIR_DEFAULT    "pki"
#define SERVER_DEFAULT "127.0.0.1,::1,localhost"
#define LIST_MAX       1024u

static const char *dir_of(const struct tow_arguments *arguments)
{
    const char *dir = tow_option_value(arguments, "dir");
    return dir ? dir : DIR_DEFAULT;
}

static enum tw_code days_of(const struct tow_arguments *arguments, uint64_t usual, uint64_t *days,
                            struct tw_error *err)
{
    const char *text = tow_option_value(arguments, "days");
    *days = usual;
    return text ? tow_number_parse("--days", text, 1, TW_PKI_DAYS_MAX, days, err) : TW_OK;
}

static int say(struct tow *tow, const char *folder, const char *what)
{
    char safe[512];
    tow_safe_text(folder, safe, sizeof safe);
    if (tow->json)
        fprintf(tow->out, "{\"folder\": \"%s\"}\n", safe);
    else
        fprintf(tow->out, "%s: %s\n", safe, what);
    return TOW_EXIT_OK;
}

int tow_pki_init(struct tow *tow, const struct tow_arguments *arguments)
{
    struct tw_error err = {0};
    uint64_t days;
    enum tw_code code = days_of(arguments, TW_PKI_AUTHORITY_DAYS, &days, &err);
    if (code == TW_OK)
        code = tw_pki_init(dir_of(arguments), (unsigned)days, &err);
    if (code != TW_OK)
        return tow_fail(tow, &err);
    return say(tow, dir_of(arguments),
               "ca.crt is what everybody trusts, ca.crl what counts no more, ca.key signs: keep it "
               "off the hosts");
}

/* Cuts `list` at its commas. */
static enum tw_code addresses_split(char *list, const char *addresses[], size_t *count,
                                    struct tw_error *err)
{
    char *rest = NULL;
    *count = 0;
    for (char *a = strtok_r(list, ",", &rest); a; a = strtok_r(NULL, ",", &rest)) {
        if (*count == TW_PKI_ADDRESSES_MAX)
            return tw_fail(err, TW_INVALID_ARGUMENT, "--address", NULL, NULL,
                           "more than %u addresses in one certificate", TW_PKI_ADDRESSES_MAX);
        addresses[(*count)++] = a;
    }
    return TW_OK;
}

static enum tw_code leaf_of(const struct tow_arguments *arguments, struct tw_pki_leaf *leaf,
                            char list[LIST_MAX], const char *addresses[], struct tw_error *err)
{
    const char *given = tow_option_value(arguments, "address");
    uint64_t days;
    *leaf = (struct tw_pki_leaf){.name = arguments->words[1], .addresses = addresses};
    if (!tw_role_parse(arguments->words[0], &leaf->role))
        return tw_fail(err, TW_INVALID_ARGUMENT, "ROLE", "operator, viewer, controller or agent",
                       arguments->words[0], "not a role");
    bool serves = leaf->role == TW_ROLE_AGENT || leaf->role == TW_ROLE_CONTROLLER;
    if (snprintf(list, LIST_MAX, "%s",
                 given    ? given
                 : serves ? SERVER_DEFAULT
                          : "") >= (int)LIST_MAX)
        return tw_fail(err, TW_INVALID_ARGUMENT, "--address", NULL, NULL, "too long");
    enum tw_code code = addresses_split(list, addresses, &leaf->address_count, err);
    if (code == TW_OK)
        code = days_of(arguments, TW_PKI_LEAF_DAYS, &days, err);
    if (code == TW_OK)
        leaf->ends_s = (int64_t)days * DAY_S;
    return code;
}

int tow_pki_issue(struct tow *tow, const struct tow_arguments *arguments)
{
    struct tw_error err = {0};
    struct tw_pki_leaf leaf;
    char list[LIST_MAX], folder[512];
    const char *addresses[TW_PKI_ADDRESSES_MAX], *out = tow_option_value(arguments, "out");
    enum tw_code code = leaf_of(arguments, &leaf, list, addresses, &err);
    if (code == TW_OK) {
        if (out)
            snprintf(folder, sizeof folder, "%s", out);
        else
            snprintf(folder, sizeof folder, "%s/%s-%s", dir_of(arguments), arguments->words[0],
                     arguments->words[1]);
        code = tw_pki_issue(dir_of(arguments), folder, &leaf, &err);
    }
    if (code != TW_OK)
        return tow_fail(tow, &err);
    return say(tow, folder,
               "ca.crt, ca.crl, tls.crt and tls.key, to be copied to where they are used");
}

int tow_pki_revoke(struct tow *tow, const struct tow_arguments *arguments)
{
    struct tw_error err = {0};
    struct stat status;
    const char *given = arguments->words[0], *dir = dir_of(arguments);
    char path[1024], safe[512], list[512];
    unsigned revoked;
    const bool folder = stat(given, &status) == 0 && S_ISDIR(status.st_mode);
    if (snprintf(path, sizeof path, folder ? "%s/" TW_PKI_CERTIFICATE_FILE : "%s", given) >=
        (int)sizeof path) {
        (void)tw_fail(&err, TW_INVALID_ARGUMENT, "CERTIFICATE", NULL, NULL, "the path is too long");
        return tow_fail(tow, &err);
    }
    if (tw_pki_revoke(dir, path, &revoked, &err) != TW_OK)
        return tow_fail(tow, &err);
    tow_safe_text(path, safe, sizeof safe);
    tow_safe_text(dir, list, sizeof list);
    if (tow->json)
        fprintf(tow->out, "{\"list\": \"%s/%s\", \"revoked\": %u}\n", list, TW_PKI_LIST_FILE,
                revoked);
    else
        fprintf(tow->out, "%s: revoked; %s/%s has %u now: put it in the place of each %s\n", safe,
                list, TW_PKI_LIST_FILE, revoked, TW_PKI_LIST_FILE);
    return TOW_EXIT_OK;
}
