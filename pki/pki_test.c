#include "pki/openssl.h"
#include "pki/test_meeting.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

TestSuite(pki, .init = test_folder_make, .fini = test_folder_remove);

Test(pki, two_ends_meet_and_know_each_other)
{
    struct meeting m;
    struct tw_identity who;
    authority("ca");
    issue(in_dir("ca"), in_dir("agent"), leaf(TW_ROLE_AGENT, "node-a"));
    issue(in_dir("ca"), in_dir("alice"), leaf(TW_ROLE_OPERATOR, "alice"));
    struct tw_tls *agent = tls_in(in_dir("agent")), *alice = tls_in(in_dir("alice"));
    meet(&m, alice, agent);
    cr_assert(met(&m));
    cr_assert_eq(tw_tls_peer(agent, m.server, &who, NULL), TW_OK);
    cr_assert_eq(who.role, TW_ROLE_OPERATOR);
    cr_assert_str_eq(who.name, "alice");
    cr_assert_eq(tw_tls_peer(alice, m.client, &who, NULL), TW_OK);
    cr_assert_eq(who.role, TW_ROLE_AGENT);
    cr_assert_str_eq(who.name, "node-a");
    cr_assert_str_eq(SSL_get_version(m.client), "TLSv1.3");
    cr_assert_geq(tw_tls_expires_s(agent), 30 * DAY - 60);
    cr_assert_leq(tw_tls_expires_s(agent), 30 * DAY);
    part(&m);
    tw_tls_close(agent);
    tw_tls_close(alice);
}

Test(pki, expired_and_foreign_are_refused)
{
    struct tw_pki_leaf old = leaf(TW_ROLE_OPERATOR, "bob");
    old.begins_s = -2 * DAY;
    old.ends_s = -DAY;
    authority("ca");
    authority("other");
    issue(in_dir("ca"), in_dir("agent"), leaf(TW_ROLE_AGENT, "node-a"));
    issue(in_dir("ca"), in_dir("old"), old);
    refused(in_dir("old"), in_dir("agent"), "expired");
    /* Trusts our authority, has its certificate from another. */
    issue(in_dir("other"), in_dir("foreign"), leaf(TW_ROLE_OPERATOR, "bob"));
    trust("foreign", "agent");
    refused(in_dir("foreign"), in_dir("agent"), "issuer certificate");
}

Test(pki, who_only_calls_cannot_serve)
{
    struct meeting m;
    char reason[TW_TLS_REASON];
    authority("ca");
    issue(in_dir("ca"), in_dir("agent"), leaf(TW_ROLE_AGENT, "node-a"));
    issue(in_dir("ca"), in_dir("viewer"), leaf(TW_ROLE_VIEWER, "v"));
    struct tw_tls *agent = tls_in(in_dir("agent")), *viewer = tls_in(in_dir("viewer"));
    meet(&m, agent, viewer);
    cr_assert_eq(m.client_result, SSL_ERROR_SSL);
    cr_assert(strstr(tw_tls_reason(m.client, reason), "purpose"), "%s", reason);
    part(&m);
    tw_tls_close(agent);
    tw_tls_close(viewer);
}

Test(pki, changed_authority_counts_for_old_connections)
{
    struct meeting m;
    struct tw_identity who;
    struct tw_error err = {0};
    authority("ca");
    authority("other");
    issue(in_dir("ca"), in_dir("agent"), leaf(TW_ROLE_AGENT, "node-a"));
    issue(in_dir("ca"), in_dir("alice"), leaf(TW_ROLE_OPERATOR, "alice"));
    struct tw_tls *agent = tls_in(in_dir("agent")), *alice = tls_in(in_dir("alice"));
    meet(&m, alice, agent);
    cr_assert_eq(tw_tls_peer(agent, m.server, &who, NULL), TW_OK);
    trust("agent", "other");
    cr_assert_eq(tw_tls_reload(agent, &err), TW_OK);
    cr_assert_eq(tw_tls_generation(agent), 2);
    cr_assert_eq(tw_tls_peer(agent, m.server, &who, &err), TW_UNAUTHENTICATED);
    cr_assert_eq(who.role, TW_ROLE_NONE);
    part(&m);
    tw_tls_close(agent);
    tw_tls_close(alice);
}

Test(pki, broken_files_leave_the_old_material)
{
    struct tw_error err = {0};
    authority("ca");
    issue(in_dir("ca"), in_dir("agent"), leaf(TW_ROLE_AGENT, "node-a"));
    struct tw_pki_leaf longer = leaf(TW_ROLE_AGENT, "node-a");
    longer.ends_s = 60 * DAY;
    issue(in_dir("ca"), in_dir("next"), longer);
    issue(in_dir("ca"), in_dir("other"), leaf(TW_ROLE_AGENT, "node-b"));
    struct tw_tls *agent = tls_in(in_dir("agent"));
    /* The certificate of one with the key of the other. */
    cr_assert_eq(rename(in_dir("next/tls.crt"), in_dir("agent/tls.crt")), 0);
    cr_assert_eq(tw_tls_reload(agent, &err), TW_INVALID_ARGUMENT);
    cr_assert(strstr(err.what, "not the key of the certificate"), "%s", err.what);
    cr_assert_eq(tw_tls_generation(agent), 1);
    cr_assert_lt(tw_tls_expires_s(agent), 31 * DAY);
    cr_assert_eq(rename(in_dir("next/tls.key"), in_dir("agent/tls.key")), 0);
    cr_assert_eq(tw_tls_reload(agent, &err), TW_OK);
    cr_assert_gt(tw_tls_expires_s(agent), 59 * DAY);
    cr_assert_eq(rename(in_dir("other/tls.key"), in_dir("agent/tls.key")), 0);
    cr_assert_eq(rename(in_dir("other/tls.crt"), in_dir("agent/tls.crt")), 0);
    cr_assert_eq(tw_tls_reload(agent, &err), TW_INVALID_ARGUMENT);
    cr_assert_str_eq(err.given, "agent node-b");
    cr_assert_eq(tw_tls_generation(agent), 2);
    cr_assert_eq(tw_tls_expect_me(agent, TW_ROLE_AGENT, "node-a", &err), TW_OK);
    cr_assert_eq(tw_tls_expect_me(agent, TW_ROLE_AGENT, "node-b", &err), TW_INVALID_ARGUMENT);
    cr_assert_eq(tw_tls_expect_me(agent, TW_ROLE_CONTROLLER, NULL, &err), TW_INVALID_ARGUMENT);
    tw_tls_close(agent);
}

/* However soon the files change: before the watch begins, and the moment after. */
static void watch_takes_changed_files(bool change_first)
{
    authority("ca");
    issue(in_dir("ca"), in_dir("agent"), leaf(TW_ROLE_AGENT, "node-a"));
    struct tw_pki_leaf longer = leaf(TW_ROLE_AGENT, "node-a");
    longer.ends_s = 60 * DAY;
    issue(in_dir("ca"), in_dir("next"), longer);
    struct tw_tls *agent = tls_in(in_dir("agent"));
    if (!change_first)
        cr_assert_eq(tw_tls_watch(agent, NULL), TW_OK);
    cr_assert_eq(rename(in_dir("next/tls.crt"), in_dir("agent/tls.crt")), 0);
    cr_assert_eq(rename(in_dir("next/tls.key"), in_dir("agent/tls.key")), 0);
    if (change_first)
        cr_assert_eq(tw_tls_watch(agent, NULL), TW_OK);
    for (int i = 0; i < 3000 && tw_tls_generation(agent) == 1; i++)
        usleep(10000);
    cr_assert_gt(tw_tls_expires_s(agent), 59 * DAY);
    tw_tls_close(agent);
}

Test(pki, the_watch_takes_files_that_change_at_once, .timeout = 60)
{
    watch_takes_changed_files(false);
}

Test(pki, the_watch_takes_files_that_changed_before_it_began, .timeout = 60)
{
    watch_takes_changed_files(true);
}

/* What this process says on standard error while it opens the material of a folder. */
static const char *said_about(const char *folder)
{
    static char said[2048];
    fflush(stderr);
    const int before = dup(STDERR_FILENO), log = memfd_create("log", MFD_CLOEXEC);
    cr_assert(before >= 0 && log >= 0);
    cr_assert_geq(dup2(log, STDERR_FILENO), 0);
    tw_tls_close(tls_in(folder));
    cr_assert_geq(dup2(before, STDERR_FILENO), 0);
    const ssize_t n = pread(log, said, sizeof said - 1, 0);
    said[n > 0 ? n : 0] = 0;
    close(before);
    close(log);
    return said;
}

Test(pki, an_end_that_is_near_is_said)
{
    static const struct {
        int64_t ends_s;
        const char *expected;
    } cases[] = {
        {15 * DAY, ""},
        {13 * DAY + 600, "expires soon\" file="},
        {13 * DAY + 600, "days=13"},
        {600, "days=0"},
        {-DAY, "has expired\" file="},
    };
    authority("ca");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char folder[32];
        struct tw_pki_leaf l = leaf(TW_ROLE_AGENT, "node-a");
        snprintf(folder, sizeof folder, "agent-%zu", i);
        l.ends_s = cases[i].ends_s;
        l.begins_s = l.ends_s < 0 ? 2 * l.ends_s : 0;
        issue(in_dir("ca"), in_dir(folder), l);
        const char *said = said_about(in_dir(folder));
        cr_expect(strstr(said, cases[i].expected), "%zu: %s", i, said);
        cr_expect_eq(!*said, !*cases[i].expected, "%zu: %s", i, said);
    }
    struct tw_tls *tls = tls_in(in_dir("agent-4"));
    cr_expect_lt(tw_tls_expires_s(tls), -DAY + 600);
    tw_tls_close(tls);
}

/* The authority counts, too, when it ends first. */
Test(pki, the_end_of_the_authority_is_said)
{
    struct tw_pki_leaf l = leaf(TW_ROLE_AGENT, "node-a");
    cr_assert_eq(tw_pki_init(in_dir("ca"), 5, NULL), TW_OK);
    authority("other");
    issue(in_dir("other"), in_dir("agent"), l);
    trust("agent", "ca");
    const char *said = said_about(in_dir("agent"));
    cr_expect(strstr(said, "certificate or authority expires soon"), "%s", said);
    struct tw_tls *tls = tls_in(in_dir("agent"));
    cr_expect_leq(tw_tls_expires_s(tls), 5 * DAY);
    tw_tls_close(tls);
}

Test(pki, nothing_is_overwritten_and_keys_are_private)
{
    struct stat status;
    struct tw_error err = {0};
    authority("ca");
    cr_assert_eq(tw_pki_init(in_dir("ca"), 1, &err), TW_ALREADY_EXISTS);
    struct tw_pki_leaf l = leaf(TW_ROLE_AGENT, "node-a");
    issue(in_dir("ca"), in_dir("agent"), l);
    cr_assert_eq(tw_pki_issue(in_dir("ca"), in_dir("agent"), &l, &err), TW_ALREADY_EXISTS);
    static const char *const keys[] = {"ca/ca.key", "agent/tls.key"};
    for (size_t i = 0; i < 2; i++) {
        cr_assert_eq(stat(in_dir(keys[i]), &status), 0);
        cr_assert_eq(status.st_mode & 07777, 0600);
    }
    cr_assert_eq(chmod(in_dir("agent/tls.key"), 0644), 0);
    EVP_PKEY *key;
    cr_assert_eq(tw_pem_key_read(in_dir("agent/tls.key"), &key, &err), TW_PERMISSION_DENIED);
    cr_assert_str_eq(err.given, "0644");
}

Test(pki, requests_that_make_no_sense)
{
    struct tw_error err = {0};
    const char *addresses[] = {"10.0.0.1", "a,URI:towline://operator/root"};
    authority("ca");
    cr_assert_eq(tw_pki_init(in_dir("x"), 0, &err), TW_INVALID_ARGUMENT);
    struct tw_pki_leaf l = leaf(TW_ROLE_AGENT, "Node A");
    cr_assert_eq(tw_pki_issue(in_dir("ca"), in_dir("x"), &l, &err), TW_INVALID_ARGUMENT);
    l = leaf(TW_ROLE_NONE, "a");
    cr_assert_eq(tw_pki_issue(in_dir("ca"), in_dir("x"), &l, &err), TW_INVALID_ARGUMENT);
    l = leaf(TW_ROLE_AGENT, "a");
    l.addresses = addresses;
    l.address_count = 2;
    cr_assert_eq(tw_pki_issue(in_dir("ca"), in_dir("x"), &l, &err), TW_INVALID_ARGUMENT);
    cr_assert_str_eq(err.given, addresses[1]);
    l = leaf(TW_ROLE_AGENT, "a");
    l.ends_s = 2 * TW_PKI_AUTHORITY_DAYS * DAY;
    cr_assert_eq(tw_pki_issue(in_dir("ca"), in_dir("x"), &l, &err), TW_INVALID_ARGUMENT);
    cr_assert_eq(tw_pki_issue(in_dir("none"), in_dir("x"), &l, &err), TW_NOT_FOUND);
}

Test(pki, half_a_pair_of_files)
{
    struct tw_tls *tls;
    struct tw_error err = {0};
    struct tw_tls_files files = {.ca = "/x", .key = "/y"};
    cr_assert_eq(tw_tls_open(&files, &tls, &err), TW_INVALID_ARGUMENT);
    cr_assert(strstr(err.what, "certificate is missing"));
    files = (struct tw_tls_files){.certificate = "/x", .key = "/y"};
    cr_assert_eq(tw_tls_open(&files, &tls, &err), TW_INVALID_ARGUMENT);
    files = (struct tw_tls_files){.ca = "/dev/null"};
    cr_assert_neq(tw_tls_open(&files, &tls, &err), TW_OK);
}
