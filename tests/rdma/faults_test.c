/* What the wire, the peer and the machine's limits do to the fabric over verbs. Runs inside the
 * machine (tests/rdma/wire), whose wire it cuts and spoils; everywhere else it fails, as there is
 * no device. What a hostile peer sends is in the contract suite. */
#include "fabric/contract.h"

#include <criterion/criterion.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SILENCE                                                                                    \
    (8 * TW_SEC) /* that the fabric bears; longer than any break meant to be survived              \
                  */
#define CHUNK    4096u
#define CHUNKS   400u
#define LIMIT_MS 60000u
#define BIG      (UINT64_C(64) << 20)

static uint8_t block[CHUNK];

static void wire(const char *command)
{
    cr_assert_eq(system(command), 0, "%s", command);
}

static void lose(const char *share)
{
    char command[128];
    for (const char *end = "ab"; *end; end++) {
        snprintf(command, sizeof command, "tc qdisc replace dev wire-%c root netem loss %s", *end,
                 share);
        wire(command);
    }
}

static void lose_nothing(void)
{
    if (system("bash -c '. \"$TOWLINE_RDMA_INSIDE\"; lose_nothing 2>/dev/null; mend_wire'") != 0)
        fprintf(stderr, "the wire was not mended\n");
}

static void need_device(void)
{
    cr_assert(world_use_verbs(NULL), "no RDMA device is named in TOWLINE_VERBS_ADDRESS");
}

TestSuite(faults, .init = need_device, .fini = lose_nothing, .timeout = 240);

static const struct tw_fabric_config patient = {.idle_timeout_ns = SILENCE,
                                                .handshake_timeout_ns = SILENCE};

static struct world *connected_as(const struct tw_fabric_config *config)
{
    struct world *w = world_open(false, config, NULL);
    bool up = false;
    for (int i = 0; i < 5 && !up; i++)
        up = world_connect(w); /* a fresh wire may need a second try */
    w->b.downs = 0;
    cr_assert(up, "%s: %s", w->b.why.where, w->b.why.what);
    return w;
}

static struct world *connected(void)
{
    return connected_as(&patient);
}

/* For wires that come back. iWARP has no repeats of its own: TCP's, ever longer apart, may come
 * late after a cut. */
static struct world *connected_for_a_cut(void)
{
    const char *kind = getenv("TOWLINE_RDMA_KIND");
    struct tw_fabric_config config = patient;
    if (kind && strcmp(kind, "siw") == 0)
        config.idle_timeout_ns = 3 * SILENCE;
    return connected_as(&config);
}

/* Sends CHUNKS chunks as fast as credit comes back; `half_way` is called in the middle. */
static void stream(struct world *w, void (*half_way)(struct world *))
{
    unsigned sent = 0;
    const uint64_t until = tw_now(w->clock) + LIMIT_MS * TW_MS;
    while (sent < CHUNKS && w->b.conn && tw_now(w->clock) < until) {
        memset(block, (int)sent, sizeof block);
        while (sent < CHUNKS && tw_conn_send(w->b.conn, TW_LANE_BULK, TW_CHUNK_BLOB, sent, 0, block,
                                             CHUNK, NULL) == TW_OK) {
            if (++sent == CHUNKS / 2 && half_way)
                half_way(w);
            memset(block, (int)sent, sizeof block);
        }
        world_step(w);
    }
    cr_assert(sent == CHUNKS || w->b.downs, "stuck at %u chunks", sent);
}

/* Everything came, in order, once, unspoilt. */
static void all_there(struct world *w)
{
    uint64_t sums = 0;
    for (unsigned i = 0; i < CHUNKS; i++)
        sums += (uint64_t)(i & 0xff) * CHUNK;
    cr_assert(WORLD_UNTIL(w, LIMIT_MS, w->a.chunks[TW_LANE_BULK] == CHUNKS || w->b.downs),
              "%llu chunks came", (unsigned long long)w->a.chunks[TW_LANE_BULK]);
    cr_assert_eq(w->b.downs, 0, "%s: %s", w->b.why.where, w->b.why.what);
    cr_assert_eq(w->a.chunks[TW_LANE_BULK], CHUNKS);
    cr_assert_eq(w->a.sums, sums);
    for (unsigned i = 0; i < w->a.logged; i++)
        cr_assert_eq(w->a.log[i].header.sequence, i);
}

Test(faults, two_of_a_hundred_packets_lost)
{
    struct world *w = connected();
    lose("2%");
    stream(w, NULL);
    all_there(w);
    lose_nothing();
    world_close(w);
}

static void break_for(struct world *w, uint64_t ms)
{
    WORLD_UNTIL(w, ms, w->b.downs);
}

static void lose_all_for_a_while(struct world *w)
{
    lose("100%");
    break_for(w, 1500);
    lose_nothing();
}

Test(faults, all_packets_lost_for_a_while)
{
    struct world *w = connected_for_a_cut();
    stream(w, lose_all_for_a_while);
    all_there(w);
    world_close(w);
}

static void link_down_for_a_while(struct world *w)
{
    wire("ip link set wire-b down");
    break_for(w, 1500);
    lose_nothing();
}

/* A suite of its own that runs last: a connection that ends while its own link is without carrier
 * leaves Soft-RoCE unable to connect (docs/fabric.md). */
TestSuite(link, .init = need_device, .fini = lose_nothing, .timeout = 240);

Test(link, down_and_up)
{
    struct world *w = connected_for_a_cut();
    stream(w, link_down_for_a_while);
    all_there(w);
    world_close(w);
}

/* A wire that stays dead ends the connection with a reason inside its limit, and a new one comes
 * up once it is mended. */
Test(faults, dead_wire_ends_in_time_and_a_new_connection_comes)
{
    struct world *w = connected();
    lose("100%");
    cr_assert(WORLD_UNTIL(w, 3 * SILENCE / TW_MS, w->b.downs && w->a.downs), "downs: a %u, b %u",
              w->a.downs, w->b.downs);
    cr_assert_gt(strlen(w->b.why.what), 0);
    lose_nothing();
    world_close(w);
    w = connected();
    stream(w, NULL);
    all_there(w);
    world_close(w);
}

/* ---- A peer that dies ------------------------------------------------------------------------ */

/* The child: the world's other half, in a process that can be killed. */
static void be_the_listener(int address_pipe)
{
    struct world *w = world_open(false, &patient, NULL);
    const char *address = tw_fabric_address(w->a.fabric);
    if (write(address_pipe, address, strlen(address) + 1) < 0)
        _exit(1);
    const uint64_t until = tw_now(w->clock) + LIMIT_MS * TW_MS;
    while (tw_now(w->clock) < until)
        world_step(w);
    _exit(0);
}

Test(faults, peer_is_killed)
{
    int ends[2], status;
    char address[128] = "";
    cr_assert_eq(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0)
        be_the_listener(ends[1]);
    cr_assert_gt(read(ends[0], address, sizeof address), 0);
    struct world *w = world_open(false, &patient, NULL);
    const struct tw_hello hello = world_hello();
    struct tw_error err = {0};
    cr_assert_eq(tw_fabric_connect(w->b.fabric, address, &hello, tw_now(w->clock) + 20 * TW_SEC,
                                   &w->b, &w->b.conn, &err),
                 TW_OK, "%s", err.what);
    cr_assert(WORLD_UNTIL(w, 20000, w->b.ups), "%s", w->b.why.what);
    cr_assert_eq(kill(child, SIGKILL), 0);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WORLD_UNTIL(w, 3 * SILENCE / TW_MS, w->b.downs));
    cr_assert_eq(w->b.why.code, TW_UNAVAILABLE, "%s", w->b.why.what);
    cr_assert_gt(strlen(w->b.why.what), 0);
    world_close(w);
    close(ends[0]);
    close(ends[1]);
}

/* ---- Limits ---------------------------------------------------------------------------------- */

/* Root may lock what it likes, unless it has given up the right to. */
static void lock_little(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    const struct rlimit little = {UINT64_C(8) << 20, UINT64_C(8) << 20};
    cr_assert_eq(syscall(SYS_capget, &header, data), 0);
    data[0].effective &= ~(1u << CAP_IPC_LOCK);
    cr_assert_eq(syscall(SYS_capset, &header, data), 0);
    cr_assert_eq(setrlimit(RLIMIT_MEMLOCK, &little), 0);
}

Test(faults, memlock_too_small_is_said_before)
{
    struct world *w = connected();
    const struct tw_hello hello = world_hello();
    struct tw_error err = {0};
    uint32_t key;
    void *memory = mmap(NULL, BIG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(memory, MAP_FAILED);
    lock_little();
    cr_assert_eq(tw_fabric_register(w->a.fabric, memory, BIG, hello.owner, &key, &err),
                 TW_RESOURCE_EXHAUSTED, "%s", err.what);
    char text[600];
    tw_error_text(&err, text, sizeof text);
    cr_assert_not_null(strstr(text, "memlock"), "%s", text);
    cr_assert_eq(w->a.downs + w->b.downs, 0, "connections go on");
    munmap(memory, BIG);
    world_close(w);
}
