/* The tcp back end on this machine: addresses, the limits of the process, the wake descriptor. */
#include "fabric/contract.h"
#include "fabric/tcp.h"

#include <criterion/criterion.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static struct world *w;

static void setup(void)
{
    w = world_open(false, NULL, NULL);
}

static void teardown(void)
{
    world_close(w);
}

TestSuite(tcp, .init = setup, .fini = teardown, .timeout = 60);

static int dial(void)
{
    union tcp_address address;
    cr_assert_eq(tcp_address_parse(tw_fabric_address(w->a.fabric), &address, NULL), TW_OK);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, &address.any, tcp_address_size(&address)), 0);
    return fd;
}

Test(tcp, no_descriptors_left_is_survived)
{
    struct rlimit old, none;
    getrlimit(RLIMIT_NOFILE, &old);
    int fds[16];
    for (unsigned i = 0; i < 16; i++)
        fds[i] = dial();
    const int next = dup(0);
    close(next);
    none = (struct rlimit){(rlim_t)next, old.rlim_max};
    setrlimit(RLIMIT_NOFILE, &none);
    unsigned events = 0;
    for (unsigned i = 0; i < 50; i++)
        events += tw_fabric_poll(w->a.fabric, tw_now(w->clock) + TW_MS);
    cr_assert_lt(events, 20, "the listener rests instead of spinning");
    setrlimit(RLIMIT_NOFILE, &old);
    cr_assert(world_connect(w), "and comes back");
    for (unsigned i = 0; i < 16; i++)
        close(fds[i]);
}

Test(tcp, addresses_that_are_none)
{
    struct tw_error err;
    union tcp_address address;
    const char *bad[] = {"",
                         "127.0.0.1",
                         "127.0.0.1:",
                         ":7202",
                         "[::1]7202",
                         "[::1:7202",
                         "node-a:7202",
                         "127.0.0.1:65536",
                         "127.0.0.1:-1",
                         "1.2.3.4.5:1",
                         "[127.0.0.1]:1",
                         "127.0.0.1: 7",
                         "]:1",
                         "[]:1",
                         "127.0.0.1:7202x"};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_eq(tcp_address_parse(bad[i], &address, &err), TW_INVALID_ARGUMENT, "%s", bad[i]);
    char text[TW_FABRIC_ADDRESS_MAX];
    cr_assert_eq(tcp_address_parse("[2001:db8::1]:7202", &address, &err), TW_OK);
    tcp_address_format(&address, text);
    cr_assert_str_eq(text, "[2001:db8::1]:7202");
    cr_assert_eq(tw_fabric_listen(w->b.fabric, "here", &err), TW_INVALID_ARGUMENT);
    cr_assert_eq(tw_fabric_listen(w->a.fabric, "127.0.0.1:0", &err), TW_FAILED_PRECONDITION);
    cr_assert_eq(tw_fabric_listen(w->b.fabric, tw_fabric_address(w->a.fabric), &err),
                 TW_ALREADY_EXISTS);
}

Test(tcp, version_6_addresses)
{
    struct tw_error err;
    struct tw_conn *conn;
    const struct tw_hello hello = world_hello();
    if (tw_fabric_listen(w->b.fabric, "[::1]:0", &err))
        cr_skip("no IPv6 here: %s", err.what);
    cr_assert_eq(tw_fabric_connect(w->a.fabric, tw_fabric_address(w->b.fabric), &hello,
                                   tw_now(w->clock) + TW_SEC, &w->a, &conn, &err),
                 TW_OK);
    cr_assert(WORLD_UNTIL(w, 1000, w->a.ups == 1 && w->b.accepts == 1));
}

Test(tcp, urgent_passes_bulk_that_has_arrived)
{
    static uint8_t bulk[16 << 10];
    struct tw_error err;
    cr_assert(world_connect(w));
    for (unsigned i = 0; i < 4; i++)
        cr_assert_eq(
            tw_conn_send(w->b.conn, TW_LANE_BULK, TW_CHUNK_LINES, 0, 0, bulk, sizeof bulk, &err),
            TW_OK);
    w->a.prompt = &w->b;
    cr_assert(WORLD_UNTIL(w, 5000, w->a.chunks[TW_LANE_BULK] == 4));
    cr_assert_eq(w->a.echoes_lost, 0);
    cr_assert_eq(w->a.log[0].lane, TW_LANE_BULK);
    cr_assert_eq(w->a.log[1].lane, TW_LANE_URGENT);
    cr_assert_eq(w->a.logged, 5);
}

Test(tcp, wake_descriptor_ends_the_wait)
{
    struct tw_fabric *fabric;
    const int wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct tw_fabric_config config = w->a.fabric->config;
    config.wake_fd = wake;
    config.clock = &tw_monotonic; /* it really sleeps */
    cr_assert_eq(tw_fabric_open(&tw_fabric_tcp, NULL, &config, &fabric, NULL), TW_OK);
    const uint64_t before = tw_now(&tw_monotonic);
    tw_fabric_poll(fabric, before + 50 * TW_MS);
    cr_assert_geq(tw_now(&tw_monotonic) - before, 49 * TW_MS, "sleeps to the deadline");
    cr_assert_eq(eventfd_write(wake, 1), 0);
    tw_fabric_poll(fabric, TW_NEVER);
    cr_assert_lt(tw_now(&tw_monotonic) - before, 10 * TW_SEC);
    tw_fabric_close(fabric);
    close(wake);
}
