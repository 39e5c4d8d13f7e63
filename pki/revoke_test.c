#include "pki/revoke.h"

#include "pki/test_meeting.h"

#include <criterion/criterion.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void setup(void)
{
    test_folder_make();
    authority("ca");
    issue(in_dir("ca"), in_dir("agent"), leaf(TW_ROLE_AGENT, "node-a"));
    issue(in_dir("ca"), in_dir("alice"), leaf(TW_ROLE_OPERATOR, "alice"));
}

TestSuite(revoke, .init = setup, .fini = test_folder_remove);

static void put_on_list(const char *certificate, unsigned expected)
{
    struct tw_error err = {0};
    unsigned revoked = 0;
    cr_assert_eq(tw_pki_revoke(in_dir("ca"), certificate, &revoked, &err), TW_OK, "%s: %s",
                 err.where, err.what);
    cr_assert_eq(revoked, expected);
}

/* Brings the authority's list to a folder. */
static void bring(const char *folder)
{
    char to[200];
    snprintf(to, sizeof to, "%s/" TW_PKI_LIST_FILE, folder);
    unlink(to);
    cr_assert_eq(tw_pki_list_copy(in_dir("ca"), folder, NULL), TW_OK);
}

static void not_opened(const struct tw_tls_files *files, const char *why)
{
    struct tw_tls *tls;
    struct tw_error err = {0};
    cr_assert_neq(tw_tls_open(files, &tls, &err), TW_OK);
    cr_expect(strstr(err.what, why), "%s: %s", err.where, err.what);
}

Test(revoke, who_is_on_the_list_is_refused)
{
    struct meeting m;
    char reason[TW_TLS_REASON];
    issue(in_dir("ca"), in_dir("bob"), leaf(TW_ROLE_OPERATOR, "bob"));
    put_on_list(in_dir("alice/tls.crt"), 1);
    struct tw_tls *alice = tls_in(in_dir("alice")), *agent = tls_in(in_dir("agent"));
    meet(&m, alice, agent);
    cr_expect(met(&m), "the agent does not have the new list yet");
    part(&m);
    tw_tls_close(agent);
    bring(in_dir("agent"));
    refused(in_dir("alice"), in_dir("agent"), "certificate revoked");
    /* The other way round: the server is the one. */
    put_on_list(in_dir("agent/tls.crt"), 2);
    bring(in_dir("bob"));
    struct tw_tls *bob = tls_in(in_dir("bob"));
    agent = tls_in(in_dir("agent"));
    meet(&m, bob, agent);
    cr_expect_eq(m.client_result, SSL_ERROR_SSL);
    cr_expect(strstr(tw_tls_reason(m.client, reason), "certificate revoked"), "%s", reason);
    part(&m);
    tw_tls_close(alice);
    tw_tls_close(agent);
    tw_tls_close(bob);
}

Test(revoke, a_new_list_counts_for_connections_that_stand)
{
    struct meeting m;
    struct tw_identity who;
    struct tw_error err = {0};
    struct tw_tls *alice = tls_in(in_dir("alice")), *agent = tls_in(in_dir("agent"));
    meet(&m, alice, agent);
    cr_assert(met(&m));
    cr_assert_eq(tw_tls_peer(agent, m.server, &who, NULL), TW_OK);
    put_on_list(in_dir("alice/tls.crt"), 1);
    cr_assert_eq(tw_tls_watch(agent, NULL), TW_OK);
    bring(in_dir("agent"));
    for (int i = 0; i < 3000 && tw_tls_generation(agent) == 1; i++)
        usleep(10000);
    cr_assert_eq(tw_tls_peer(agent, m.server, &who, &err), TW_UNAUTHENTICATED);
    cr_expect(strstr(err.what, "certificate revoked"), "%s", err.what);
    part(&m);
    tw_tls_close(agent);
    tw_tls_close(alice);
}

Test(revoke, what_is_no_list_of_the_authority_is_not_taken)
{
    struct tw_tls_files files;
    struct tw_error err = {0};
    authority("other");
    cr_assert_eq(tw_tls_files_in(in_dir("agent"), &files, NULL), TW_OK);
    struct tw_tls *agent = tls_in(in_dir("agent"));
    trust("alice", "other");
    cr_assert_eq(rename(in_dir("alice/ca.crl"), in_dir("agent/ca.crl")), 0);
    cr_expect_neq(tw_tls_reload(agent, &err), TW_OK);
    cr_expect(strstr(err.what, "no list of revoked certificates that is signed by"), "%s",
              err.what);
    cr_expect_eq(tw_tls_generation(agent), 1);
    not_opened(&files, "signed by");
    cr_assert_eq(truncate(files.crl, 100), 0);
    not_opened(&files, "no lists of revoked certificates");
    cr_assert_eq(truncate(files.crl, 0), 0);
    not_opened(&files, "no lists of revoked certificates");
    cr_assert_eq(truncate(files.crl, TW_PKI_LIST_BYTES_MAX + 1), 0);
    not_opened(&files, "not a file of revoked certificates");
    cr_assert_eq(unlink(files.crl), 0);
    not_opened(&files, "cannot open");
    snprintf(files.crl, sizeof files.crl, "%s", in_dir("agent"));
    not_opened(&files, "not a file of revoked certificates");
    tw_tls_close(agent);
}

static X509_CRL *list_of(const char *path)
{
    FILE *f = fopen(path, "r");
    cr_assert(f, "%s", path);
    X509_CRL *list = PEM_read_X509_CRL(f, NULL, NULL, NULL);
    fclose(f);
    cr_assert(list, "%s", path);
    return list;
}

/* The list as somebody who cannot sign would like to have it. */
Test(revoke, a_changed_list_is_not_taken)
{
    struct tw_tls_files files;
    put_on_list(in_dir("alice/tls.crt"), 1);
    X509_CRL *list = list_of(in_dir("ca/ca.crl"));
    X509_REVOKED_free(sk_X509_REVOKED_pop(X509_CRL_get_REVOKED(list)));
    cr_assert_eq(X509_CRL_sort(list), 1); /* encoded anew */
    FILE *f = fopen(in_dir("agent/ca.crl"), "w");
    cr_assert_eq(PEM_write_X509_CRL(f, list), 1);
    fclose(f);
    X509_CRL_free(list);
    cr_assert_eq(tw_tls_files_in(in_dir("agent"), &files, NULL), TW_OK);
    not_opened(&files, "signed by");
}

Test(revoke, lists_of_two_authorities_in_one_file)
{
    struct tw_tls_files files;
    char command[512];
    authority("next");
    put_on_list(in_dir("alice/tls.crt"), 1);
    snprintf(command, sizeof command,
             "cd %s && cat ca/ca.crt next/ca.crt >agent/ca.crt && cat next/ca.crl >agent/ca.crl",
             test_folder());
    cr_assert_eq(system(command), 0);
    cr_assert_eq(tw_tls_files_in(in_dir("agent"), &files, NULL), TW_OK);
    not_opened(&files, "signed by");
    snprintf(command, sizeof command, "cd %s && cat ca/ca.crl >>agent/ca.crl", test_folder());
    cr_assert_eq(system(command), 0);
    refused(in_dir("alice"), in_dir("agent"), "certificate revoked");
    issue(in_dir("next"), in_dir("carol"), leaf(TW_ROLE_OPERATOR, "carol"));
    trust("carol", "ca");
    struct meeting m;
    struct tw_tls *carol = tls_in(in_dir("carol")), *agent = tls_in(in_dir("agent"));
    meet(&m, carol, agent);
    cr_expect(met(&m));
    part(&m);
    tw_tls_close(carol);
    tw_tls_close(agent);
}

Test(revoke, requests_that_make_no_sense)
{
    struct tw_error err = {0};
    unsigned revoked = 0;
    struct stat status;
    authority("other");
    issue(in_dir("other"), in_dir("foreign"), leaf(TW_ROLE_OPERATOR, "alice"));
    put_on_list(in_dir("alice/tls.crt"), 1);
    cr_expect_eq(tw_pki_revoke(in_dir("ca"), in_dir("alice/tls.crt"), &revoked, &err),
                 TW_ALREADY_EXISTS);
    cr_expect_eq(tw_pki_revoke(in_dir("ca"), in_dir("foreign/tls.crt"), &revoked, &err),
                 TW_INVALID_ARGUMENT);
    cr_expect(strstr(err.what, "of another authority"), "%s", err.what);
    cr_expect_eq(tw_pki_revoke(in_dir("ca"), in_dir("alice/tls.key"), &revoked, &err),
                 TW_INVALID_ARGUMENT);
    cr_expect_eq(tw_pki_revoke(in_dir("ca"), in_dir("none"), &revoked, &err), TW_NOT_FOUND);
    cr_expect_eq(tw_pki_revoke(in_dir("agent"), in_dir("alice/tls.crt"), &revoked, &err),
                 TW_NOT_FOUND, "no key to sign with");
    cr_expect_neq(stat(in_dir("ca/ca.crl.new"), &status), 0, "nothing is left behind");
    /* Two at once would lose one of two entries. */
    cr_assert_eq(link(in_dir("ca/ca.crl"), in_dir("ca/ca.crl.new")), 0);
    cr_expect_eq(tw_pki_revoke(in_dir("ca"), in_dir("agent/tls.crt"), &revoked, &err),
                 TW_ALREADY_EXISTS);
    cr_expect(strstr(err.what, "somebody revokes at this moment"), "%s", err.what);
    cr_assert_eq(unlink(in_dir("ca/ca.crl.new")), 0);
    put_on_list(in_dir("agent/tls.crt"), 2);
}

/* Authorities of before have no list: nobody asks, and the first revocation begins one. */
Test(revoke, an_authority_without_a_list)
{
    struct tw_tls_files files;
    cr_assert_eq(unlink(in_dir("ca/ca.crl")), 0);
    issue(in_dir("ca"), in_dir("bob"), leaf(TW_ROLE_OPERATOR, "bob"));
    cr_assert_eq(tw_tls_files_in(in_dir("bob"), &files, NULL), TW_OK);
    cr_expect_str_eq(files.crl, "");
    tw_tls_close(tls_in(in_dir("bob")));
    put_on_list(in_dir("bob/tls.crt"), 1);
    bring(in_dir("agent"));
    refused(in_dir("bob"), in_dir("agent"), "certificate revoked");
}

Test(revoke, lists_are_numbered_and_asked)
{
    struct tw_error err = {0};
    bool revoked = true;
    long numbers[2];
    cr_assert_eq(tw_pki_revoked(in_dir("ca/ca.crl"), in_dir("alice/tls.crt"), &revoked, &err),
                 TW_OK);
    cr_expect_not(revoked);
    for (int i = 0; i < 2; i++) {
        X509_CRL *list = list_of(in_dir("ca/ca.crl"));
        ASN1_INTEGER *number = X509_CRL_get_ext_d2i(list, NID_crl_number, NULL, NULL);
        numbers[i] = ASN1_INTEGER_get(number);
        ASN1_INTEGER_free(number);
        X509_CRL_free(list);
        if (i == 0)
            put_on_list(in_dir("alice/tls.crt"), 1);
    }
    cr_expect_gt(numbers[1], numbers[0]);
    cr_assert_eq(tw_pki_revoked(in_dir("ca/ca.crl"), in_dir("alice/tls.crt"), &revoked, &err),
                 TW_OK);
    cr_expect(revoked);
    cr_expect_eq(tw_pki_revoked(in_dir("none"), in_dir("alice/tls.crt"), &revoked, &err),
                 TW_NOT_FOUND);
}
