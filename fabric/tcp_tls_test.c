/* Who gets in under TLS, what those are told who do not, and what a liar inside TLS can do. */
#include "fabric/contract.h"
#include "fabric/tcp.h"
#include "fabric/tls_fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct world *w;
static struct fixture fixture;

static void setup(void)
{
    signal(SIGPIPE, SIG_IGN); /* OpenSSL's own sockets raise it */
    world_use_tls();
    w = world_open(false, NULL, NULL);
    fixture = fixture_open();
    fixture_authority(&fixture, "ours");
    fixture_authority(&fixture, "theirs");
}

static void teardown(void)
{
    world_close(w);
    fixture_close(&fixture);
}

TestSuite(tls, .init = setup, .fini = teardown, .timeout = 120);

/* Gives a side another certificate, for connections to come. */
static void reissue(struct side *s, struct fixture_leaf leaf)
{
    tw_tls_close(s->tls);
    s->tls = fixture_tls(&fixture, &leaf);
    ((struct tcp_fabric *)s->fabric)->tls = s->tls;
}

static struct tcp_fabric *server(void)
{
    return (struct tcp_fabric *)w->a.fabric;
}

/* Both ends know why: b by its on_down, a by what it notes of those who do not get in. */
static void refused(enum tw_code b_code, const char *b_says, const char *a_says)
{
    char text[512];
    const uint64_t before = server()->refusals;
    cr_assert_not(world_connect(w));
    cr_assert(WORLD_UNTIL(w, 2000, server()->refusals > before));
    cr_expect_eq(w->b.why.code, b_code);
    tw_error_text(&w->b.why, text, sizeof text);
    cr_expect(strstr(text, b_says), "expected \"%s\" at b: %s", b_says, text);
    tw_error_text(&server()->refusal, text, sizeof text);
    cr_expect(strstr(text, a_says), "expected \"%s\" at a: %s", a_says, text);
    cr_expect_eq(w->a.accepts, 0, "its owner is not asked");
}

/* ---- Certificates ---------------------------------------------------------------------------- */

Test(tls, the_client_is_of_another_authority)
{
    reissue(&w->a, (struct fixture_leaf){"ours", NULL, TW_ROLE_AGENT, "a", 0, 0});
    reissue(&w->b, (struct fixture_leaf){"theirs", "ours", TW_ROLE_AGENT, "b", 0, 0});
    refused(TW_UNAUTHENTICATED, "unknown CA", "given agent b: unable to get local issuer");
}

Test(tls, the_server_is_of_another_authority)
{
    reissue(&w->a, (struct fixture_leaf){"theirs", "ours", TW_ROLE_AGENT, "a", 0, 0});
    reissue(&w->b, (struct fixture_leaf){"ours", NULL, TW_ROLE_AGENT, "b", 0, 0});
    refused(TW_UNAUTHENTICATED, "given agent a: unable to get local issuer", "unknown CA");
}

Test(tls, the_client_has_expired)
{
    reissue(&w->a, (struct fixture_leaf){"ours", NULL, TW_ROLE_AGENT, "a", 0, 0});
    reissue(&w->b, (struct fixture_leaf){"ours", NULL, TW_ROLE_AGENT, "b", -2 * FIXTURE_DAY, -60});
    refused(TW_UNAUTHENTICATED, "certificate expired", "given agent b: certificate has expired");
}

Test(tls, the_server_has_expired)
{
    reissue(&w->a, (struct fixture_leaf){"ours", NULL, TW_ROLE_AGENT, "a", -2 * FIXTURE_DAY, -60});
    reissue(&w->b, (struct fixture_leaf){"ours", NULL, TW_ROLE_AGENT, "b", 0, 0});
    refused(TW_UNAUTHENTICATED, "given agent a: certificate has expired", "certificate expired");
}

/* As reissue(), by "ours"; where the files are. */
static struct tw_tls_files issued(struct side *who, const char *name)
{
    const struct fixture_leaf leaf = {"ours", NULL, TW_ROLE_AGENT, name, 0, 0};
    const struct tw_tls_files files = fixture_issue(&fixture, &leaf);
    tw_tls_close(who->tls);
    cr_assert_eq(tw_tls_open(&files, &who->tls, NULL), TW_OK);
    ((struct tcp_fabric *)who->fabric)->tls = who->tls;
    return files;
}

Test(tls, the_client_has_been_revoked)
{
    const struct tw_tls_files a = issued(&w->a, "a"), b = issued(&w->b, "b");
    fixture_revoke(&fixture, "ours", b.certificate, &a);
    cr_assert_eq(tw_tls_reload(w->a.tls, NULL), TW_OK);
    refused(TW_UNAUTHENTICATED, "certificate revoked", "given agent b: certificate revoked");
}

Test(tls, the_server_has_been_revoked)
{
    const struct tw_tls_files a = issued(&w->a, "a"), b = issued(&w->b, "b");
    fixture_revoke(&fixture, "ours", a.certificate, &b);
    cr_assert_eq(tw_tls_reload(w->b.tls, NULL), TW_OK);
    refused(TW_UNAUTHENTICATED, "given agent a: certificate revoked", "certificate revoked");
}

Test(tls, the_client_has_no_certificate)
{
    struct tw_tls_files files =
        fixture_issue(&fixture, &(struct fixture_leaf){"ours", NULL, TW_ROLE_AGENT, "a", 0, 0});
    reissue(&w->a, (struct fixture_leaf){"ours", NULL, TW_ROLE_AGENT, "a", 0, 0});
    tw_tls_close(w->b.tls);
    files.certificate[0] = files.key[0] = '\0';
    cr_assert_eq(tw_tls_open(&files, &w->b.tls, NULL), TW_OK);
    ((struct tcp_fabric *)w->b.fabric)->tls = w->b.tls;
    refused(TW_UNAUTHENTICATED, "certificate required", "the peer shows no certificate");
}

Test(tls, only_agents_get_in)
{
    static const enum tw_identity_role others[] = {TW_ROLE_VIEWER, TW_ROLE_OPERATOR,
                                                   TW_ROLE_CONTROLLER};
    reissue(&w->a, (struct fixture_leaf){"ours", NULL, TW_ROLE_AGENT, "a", 0, 0});
    for (unsigned i = 0; i < 3; i++) {
        char given[64];
        reissue(&w->b, (struct fixture_leaf){"ours", NULL, others[i], "b", 0, 0});
        snprintf(given, sizeof given, "given %s b", tw_role_name(others[i]));
        refused(TW_PERMISSION_DENIED, given, given);
    }
}

Test(tls, only_agents_are_spoken_to)
{
    reissue(&w->a, (struct fixture_leaf){"ours", NULL, TW_ROLE_CONTROLLER, "a", 0, 0});
    reissue(&w->b, (struct fixture_leaf){"ours", NULL, TW_ROLE_AGENT, "b", 0, 0});
    refused(TW_PERMISSION_DENIED, "given controller a", "gone");
}

Test(tls, the_hello_must_give_the_certificates_name)
{
    reissue(&w->a, (struct fixture_leaf){"ours", NULL, TW_ROLE_AGENT, "a", 0, 0});
    reissue(&w->b, (struct fixture_leaf){"ours", NULL, TW_ROLE_AGENT, "mallory", 0, 0});
    refused(TW_PERMISSION_DENIED, "expected mallory, given b", "expected mallory, given b");
}

Test(tls, the_answer_must_give_the_certificates_name)
{
    reissue(&w->a, (struct fixture_leaf){"ours", NULL, TW_ROLE_AGENT, "mallory", 0, 0});
    reissue(&w->b, (struct fixture_leaf){"ours", NULL, TW_ROLE_AGENT, "b", 0, 0});
    cr_assert_not(world_connect(w));
    cr_assert_eq(w->b.why.code, TW_PERMISSION_DENIED);
    cr_assert_str_eq(w->b.why.expected, "mallory");
    cr_assert_str_eq(w->b.why.given, "a");
}

Test(tls, a_fabric_does_not_open_with_anothers_certificate)
{
    struct tw_error err;
    struct tw_fabric *fabric;
    const struct tw_fabric_config config = w->a.fabric->config;
    struct tw_fabric_tcp_settings settings = {w->b.tls};
    cr_assert_eq(tw_fabric_open(&tw_fabric_tcp, &settings, &config, &fabric, &err),
                 TW_INVALID_ARGUMENT);
    cr_assert_str_eq(err.expected, "agent a");
    cr_assert_str_eq(err.given, "agent b");
}

/* ---- Plain text and TLS ---------------------------------------------------------------------- */

Test(tls, plain_text_to_a_tls_port)
{
    ((struct tcp_fabric *)w->b.fabric)->tls = NULL;
    refused(TW_UNAUTHENTICATED, "expected TLS 1.3 with an agent's certificate",
            "given plain text of the fabric");
}

Test(tls, tls_to_a_plain_port)
{
    server()->tls = NULL;
    refused(TW_UNAUTHENTICATED, "the peer does not speak TLS", "expected plain text, given TLS");
}

Test(tls, plain_text_stays_on_this_host)
{
    struct tw_error err;
    struct tw_conn *conn;
    const struct tw_hello hello = world_hello();
    static const char *const outside[] = {"0.0.0.0:0", "[::]:0", "192.0.2.1:7202",
                                          "[2001:db8::1]:1", "[::ffff:192.0.2.1]:1"};
    cr_assert_eq(tw_fabric_listen(w->b.fabric, "0.0.0.0:0", NULL), TW_OK, "TLS may");
    w->b.fabric->address[0] = '\0';
    ((struct tcp_fabric *)w->b.fabric)->tls = NULL;
    for (unsigned i = 0; i < sizeof outside / sizeof *outside; i++) {
        cr_expect_eq(tw_fabric_listen(w->b.fabric, outside[i], &err), TW_FAILED_PRECONDITION, "%s",
                     outside[i]);
        cr_expect_str_eq(err.given, outside[i]);
        cr_expect_eq(
            tw_fabric_connect(w->b.fabric, outside[i], &hello, TW_NEVER, &w->b, &conn, &err),
            TW_FAILED_PRECONDITION, "%s", outside[i]);
    }
    union tcp_address address;
    cr_assert_eq(tcp_address_parse("[::ffff:127.0.0.1]:7202", &address, NULL), TW_OK);
    cr_assert(tcp_address_is_loopback(&address));
    cr_assert_eq(tcp_address_parse("127.8.0.1:7202", &address, NULL), TW_OK);
    cr_assert(tcp_address_is_loopback(&address));
}

/* ---- Liars ----------------------------------------------------------------------------------- */

struct liar {
    int fd;
    SSL *ssl;
};

static struct liar dial(void)
{
    union tcp_address address;
    cr_assert_eq(tcp_address_parse(tw_fabric_address(w->a.fabric), &address, NULL), TW_OK);
    struct liar l = {socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), NULL};
    cr_assert_eq(connect(l.fd, &address.any, tcp_address_size(&address)), 0);
    fcntl(l.fd, F_SETFL, O_NONBLOCK);
    SSL_CTX *context = tw_tls_context(w->b.tls);
    l.ssl = SSL_new(context);
    SSL_CTX_free(context);
    SSL_set_fd(l.ssl, l.fd);
    return l;
}

static void hang(struct liar *l)
{
    SSL_free(l->ssl);
    close(l->fd);
}

static bool shake(struct liar *l)
{
    return WORLD_UNTIL(w, 2000, SSL_connect(l->ssl) == 1);
}

static void greet(struct liar *l)
{
    uint8_t bytes[TW_HELLO_BYTES];
    struct tw_hello hello = world_hello();
    struct tw_frame_header h = {.kind = TW_FRAME_HELLO, .numbers = {16, 8}};
    hello.version = hello.version_min = 1;
    strcpy(hello.name, "b");
    tw_hello_encode(&hello, bytes);
    tw_frame_seal(&h, bytes, sizeof bytes);
    cr_assert(shake(l));
    cr_assert_eq(SSL_write(l->ssl, &h, sizeof h), sizeof h);
    cr_assert_eq(SSL_write(l->ssl, bytes, sizeof bytes), sizeof bytes);
    cr_assert(WORLD_UNTIL(w, 1000, w->a.accepts == 1));
}

static bool ended(const struct liar *l)
{
    uint8_t bytes[4096];
    const ssize_t n = recv(l->fd, bytes, sizeof bytes, 0);
    return n == 0 || (n < 0 && errno != EAGAIN);
}

Test(tls, half_a_handshake_ends_by_the_deadline)
{
    struct liar l = dial();
    BIO *bio = BIO_new(BIO_s_mem());
    char *first;
    SSL_set_bio(l.ssl, BIO_new(BIO_s_mem()), bio);
    cr_assert_neq(SSL_connect(l.ssl), 1);
    const long size = BIO_get_mem_data(bio, &first);
    cr_assert_gt(size, 100);
    const uint64_t before = tw_now(w->clock);
    cr_assert_eq(send(l.fd, first, (size_t)size / 2, MSG_NOSIGNAL), size / 2);
    cr_assert(world_connect(w), "others are served");
    cr_assert(WORLD_UNTIL(w, 5000, ended(&l)));
    cr_assert_geq(tw_now(w->clock) - before, 350 * TW_MS);
    cr_assert_eq(server()->refusal.code, TW_DEADLINE_EXCEEDED);
    hang(&l);
}

Test(tls, noise_of_every_kind)
{
    static const uint8_t first[] = {0x00, 0x14, 0x15, 0x16, 0x17, 0x80, 0xff, 'T', 'G'};
    for (unsigned i = 0; i < sizeof first * 8; i++) {
        struct liar l = dial();
        uint8_t noise[300];
        for (unsigned k = 0; k < sizeof noise; k++)
            noise[k] = (uint8_t)(k * 131 + i * 17);
        noise[0] = first[i / 8];
        if (i % 2) /* a header that OpenSSL likes, of a record with rubbish in it */
            memcpy(noise + 1, "\3\1\1\0", 4);
        cr_assert_eq(send(l.fd, noise, sizeof noise, MSG_NOSIGNAL), sizeof noise);
        cr_assert(WORLD_UNTIL(w, 2000, ended(&l)), "%u", i);
        hang(&l);
    }
    cr_assert(world_connect(w));
}

Test(tls, older_versions_are_refused)
{
    struct liar l = dial();
    SSL_set_min_proto_version(l.ssl, TLS1_2_VERSION);
    SSL_set_max_proto_version(l.ssl, TLS1_2_VERSION);
    cr_assert_not(shake(&l));
    cr_assert_eq(server()->refusal.code, TW_UNAUTHENTICATED);
    cr_assert_str_eq(server()->refusal.expected, "TLS 1.3");
    hang(&l);
}

/* After a whole handshake silence is as suspicious as before it. */
Test(tls, silence_behind_the_handshake)
{
    struct liar l = dial();
    cr_assert(shake(&l));
    cr_assert(WORLD_UNTIL(w, 5000, ended(&l)));
    cr_assert_eq(server()->refusal.code, TW_DEADLINE_EXCEEDED);
    hang(&l);
}

Test(tls, key_updates_without_end)
{
    struct liar l = dial();
    cr_assert(shake(&l));
    for (unsigned i = 0; i < 2000 && SSL_key_update(l.ssl, SSL_KEY_UPDATE_REQUESTED) == 1; i++)
        if (SSL_do_handshake(l.ssl) != 1)
            break;
    cr_assert(WORLD_UNTIL(w, 2000, ended(&l)));
    cr_assert_eq(server()->refusals, 1);
    hang(&l);
    l = dial();
    greet(&l);
    for (unsigned i = 0; i < 2000 && SSL_key_update(l.ssl, SSL_KEY_UPDATE_REQUESTED) == 1; i++)
        if (SSL_do_handshake(l.ssl) != 1)
            break;
    cr_assert(WORLD_UNTIL(w, 2000, w->a.downs == 1));
    cr_assert_eq(w->a.why.code, TW_RESOURCE_EXHAUSTED);
    hang(&l);
    cr_assert(world_connect(w));
}

Test(tls, a_damaged_record)
{
    struct liar l = dial();
    greet(&l);
    uint8_t record[5 + 200] = {0x17, 3, 3, 0, 200, 1, 2, 3};
    cr_assert_eq(send(l.fd, record, sizeof record, MSG_NOSIGNAL), sizeof record);
    cr_assert(WORLD_UNTIL(w, 2000, w->a.downs == 1));
    cr_assert_eq(w->a.why.code, TW_UNAUTHENTICATED);
    cr_assert(strstr(w->a.why.what, "TLS fails"), "%s", w->a.why.what);
    hang(&l);
}

Test(tls, cut_in_the_middle_of_a_record)
{
    struct liar l = dial();
    greet(&l);
    cr_assert_eq(send(l.fd, "\x17\3\3\1\0 ten bytes", 15, MSG_NOSIGNAL), 15);
    shutdown(l.fd, SHUT_WR);
    cr_assert(WORLD_UNTIL(w, 2000, w->a.downs == 1));
    cr_assert_eq(w->a.why.code, TW_UNAVAILABLE);
    hang(&l);
}

/* Everything of the handshake and the hello in one go: what TLS holds back is not forgotten. */
Test(tls, the_next_frame_came_with_the_hello)
{
    struct liar l = dial();
    uint8_t bytes[2 * TW_FRAME_HEADER + TW_HELLO_BYTES];
    struct tw_hello hello = world_hello();
    hello.version = hello.version_min = 1;
    strcpy(hello.name, "b");
    tw_hello_encode(&hello, bytes + TW_FRAME_HEADER);
    struct tw_frame_header h = {.kind = TW_FRAME_HELLO, .numbers = {16, 8}};
    tw_frame_seal(&h, bytes + TW_FRAME_HEADER, TW_HELLO_BYTES);
    memcpy(bytes, &h, sizeof h);
    h = (struct tw_frame_header){.kind = TW_FRAME_PING}; /* too early */
    tw_frame_seal(&h, NULL, 0);
    memcpy(bytes + TW_FRAME_HEADER + TW_HELLO_BYTES, &h, sizeof h);
    cr_assert(shake(&l));
    cr_assert_eq(SSL_write(l.ssl, bytes, sizeof bytes), sizeof bytes);
    cr_assert(WORLD_UNTIL(w, 200, w->a.downs == 1), "before the handshake's deadline");
    cr_assert_eq(w->a.why.code, TW_INVALID_ARGUMENT);
    hang(&l);
}

/* ---- Keys that change ------------------------------------------------------------------------ */

static void send_much(unsigned chunks)
{
    static uint8_t payload[TW_CHUNK_PAYLOAD];
    struct tw_conn *conn = w->b.conn;
    const uint64_t until = tw_now(w->clock) + 20 * TW_SEC;
    for (unsigned sent = 0; sent < chunks || !tw_conn_drained(conn, TW_LANE_BULK);) {
        cr_assert_lt(tw_now(w->clock), until);
        if (sent < chunks && tw_conn_send(conn, TW_LANE_BULK, TW_CHUNK_BLOB, 0, 0, payload,
                                          sizeof payload, NULL) == TW_OK)
            sent++;
        world_step(w);
        cr_assert(w->b.conn == conn, "%s; %s", w->b.why.what, w->a.why.what);
    }
}

Test(tls, a_key_is_changed_in_time)
{
    cr_assert(world_connect(w));
    struct tcp_tls *bulk = ((struct tcp_conn *)w->b.conn)->streams[TW_LANE_BULK].tls;
    bulk->rekey_bytes = 1000000;
    send_much(40);
    cr_assert_lt(bulk->sealed, 1000000 + TW_FRAME_MAX);
    cr_assert_eq(((struct tcp_conn *)w->a.conn)->streams[TW_LANE_BULK].tls->messages, 5);
}

Test(tls, certificates_and_authority_change_under_a_connection)
{
    const struct fixture_leaf a = {"ours", NULL, TW_ROLE_AGENT, "a", 0, 0};
    const struct fixture_leaf a_next = {"theirs", NULL, TW_ROLE_AGENT, "a", 0, 0};
    const struct tw_tls_files files = fixture_issue(&fixture, &a);
    const struct tw_tls_files next = fixture_issue(&fixture, &a_next);
    tw_tls_close(w->a.tls);
    cr_assert_eq(tw_tls_open(&files, &w->a.tls, NULL), TW_OK);
    server()->tls = w->a.tls;
    reissue(&w->b, (struct fixture_leaf){"ours", NULL, TW_ROLE_AGENT, "b", 0, 0});
    cr_assert(world_connect(w));
    struct tw_conn *before = w->b.conn;

    cr_assert_eq(truncate(files.certificate, 40), 0);
    cr_assert_neq(tw_tls_reload(w->a.tls, NULL), TW_OK, "a broken file");
    send_much(20);
    cr_assert(world_connect(w), "the old certificate serves");
    tw_conn_close(before);
    before = w->b.conn;

    fixture_replace(&files, &next);
    cr_assert_eq(tw_tls_reload(w->a.tls, NULL), TW_OK);
    send_much(20);
    cr_assert_not(world_connect(w), "b still trusts the old authority");
    cr_assert_eq(w->b.why.code, TW_UNAUTHENTICATED);
    reissue(&w->b, (struct fixture_leaf){"theirs", NULL, TW_ROLE_AGENT, "b", 0, 0});
    cr_assert(world_connect(w));
    send_much(5);
    w->b.conn = before;
    send_much(5);
}
