/* A mirror against a source that sends whatever it likes: nothing is held that was not named, what
 * is wrong ends it with the reason told, and it never says that it holds what it does not. */
#include "services/migration/mirror.h"

#include "base/random.h"
#include "fabric/sim.h"
#include "services/migration/control.h"
#include "services/migration/line_hash.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define PAGES 64u
#define EPOCH 8u

static struct {
    struct tw_sim *sim;
    const struct tw_clock *clock;
    struct tw_fabric *fabric[2]; /* 0 = the mirror's, 1 = the stranger's */
    struct tw_mirror *mirror;
    struct tw_conn *peer; /* the stranger's end */
    bool up, down, kept;
    struct tw_error told; /* by an abort of the mirror, or why the connection is down */
} d;

static const uint8_t token[TW_OWNER_SIZE] = "0123456789abcde";

static enum tw_code on_accept(void *ctx, struct tw_conn *conn, const struct tw_hello *hello,
                              void **conn_ctx, struct tw_error *err)
{
    struct tw_migration_end *end = NULL;
    (void)ctx;
    enum tw_code code = tw_mirror_accept(d.mirror, conn, hello, &end, err);
    *conn_ctx = end;
    return code;
}

static void on_up(void *ctx, struct tw_conn *conn)
{
    if (ctx)
        tw_migration_on_up(ctx, conn);
    else
        d.up = true;
}

static enum tw_code on_chunk(void *ctx, struct tw_conn *conn, enum tw_lane lane,
                             const struct tw_chunk_header *header, const uint8_t *payload,
                             struct tw_error *err)
{
    union tw_control c;
    if (ctx)
        return tw_migration_on_chunk(ctx, conn, lane, header, payload, err);
    if (tw_control_decode(header, lane, payload, &c, err) != TW_OK)
        return err->code;
    d.kept |= header->tag == TW_CONTROL_KEPT;
    if (header->tag == TW_CONTROL_ABORT)
        tw_control_abort_unpack(&c.abort, &d.told);
    return TW_OK;
}

static void on_down(void *ctx, struct tw_conn *conn, const struct tw_error *why)
{
    if (ctx) {
        tw_migration_on_down(ctx, conn, why);
        return;
    }
    d.peer = NULL;
    d.down = true;
    if (!d.told.code)
        d.told = *why;
}

static const struct tw_fabric_events events = {
    .on_accept = on_accept, .on_up = on_up, .on_chunk = on_chunk, .on_down = on_down};

/* It never holds more than was named, nor says that it has all when it has not. */
static void check(void)
{
    struct tw_mirror_progress p;
    tw_mirror_progress(d.mirror, &p);
    cr_assert_leq(p.lines_held, p.lines_named);
    cr_assert_leq(p.bytes_held, PAGES * TW_PAGE_SIZE);
    cr_assert(!p.complete || p.lines_held == p.lines_named);
}

static void turns(unsigned n, uint64_t ns)
{
    while (n--) {
        tw_mirror_step(d.mirror);
        check();
        tw_sim_advance(d.sim, ns);
        tw_fabric_poll(d.fabric[0], 0);
        tw_fabric_poll(d.fabric[1], 0);
    }
}

static void connect_as(const struct tw_hello *hello)
{
    d.up = d.down = false;
    cr_assert_eq(
        tw_fabric_connect(d.fabric[1], "mir", hello, tw_now(d.clock) + TW_SEC, NULL, &d.peer, NULL),
        TW_OK);
    for (unsigned n = 0; n < 200 && !d.up && !d.down; n++)
        turns(1, 20 * TW_US);
}

static struct tw_hello hello(void)
{
    struct tw_hello h = {.epoch = EPOCH};
    memcpy(h.owner, token, TW_OWNER_SIZE);
    return h;
}

static void open_mirror(uint64_t seed)
{
    struct tw_sim_config sim = {.seed = seed};
    struct tw_migration_params params = {
        .id = "m-1", .vm = "web", .epoch = EPOCH, .limits = {.timeout_ns = 60 * TW_SEC}};
    memset(&d, 0, sizeof d);
    memcpy(params.token, token, TW_OWNER_SIZE);
    d.sim = tw_sim_open(&sim);
    d.clock = tw_sim_clock(d.sim);
    for (unsigned i = 0; i < 2; i++) {
        struct tw_fabric_config config = {
            .name = i ? "peer" : "mir", .clock = d.clock, .events = &events, .bulk_credits = 4};
        cr_assert_eq(tw_fabric_open(&tw_fabric_sim, d.sim, &config, &d.fabric[i], NULL), TW_OK);
    }
    const struct tw_migration_env env = {.clock = d.clock, .fabric = d.fabric[0]};
    cr_assert_eq(tw_fabric_listen(d.fabric[0], "mir", NULL), TW_OK);
    cr_assert_eq(tw_mirror_start(&env, &params, PAGES * TW_PAGE_SIZE, 2 * TW_SEC, &d.mirror, NULL),
                 TW_OK);
}

static void close_mirror(void)
{
    tw_mirror_free(d.mirror);
    tw_fabric_close(d.fabric[0]);
    tw_fabric_close(d.fabric[1]);
    tw_sim_close(d.sim);
}

static void meet(uint64_t seed)
{
    const struct tw_hello h = hello();
    open_mirror(seed);
    connect_as(&h);
    cr_assert(d.up);
}

/* ---- Saying things -----------------------------------------------------------------------------
 */

static void send_bytes(enum tw_lane lane, enum tw_chunk_kind kind, uint32_t tag, uint32_t count,
                       const void *bytes, uint32_t size)
{
    if (d.peer)
        tw_conn_send(d.peer, lane, kind, tag, count, bytes, size, NULL);
    turns(4, 60 * TW_US);
}

static void say(enum tw_control_kind kind, const union tw_control *m)
{
    if (d.peer)
        tw_control_send(d.peer, kind, m, NULL);
    turns(4, 60 * TW_US);
}

static void say_begin(uint64_t pages, uint64_t epoch, enum tw_migration_method method)
{
    union tw_control m = {.begin = {pages * TW_PAGE_SIZE, epoch, 1, (uint32_t)method}};
    say(TW_CONTROL_BEGIN, &m);
}

#define RECORD(page, kind, word)                                                                   \
    (struct tw_record_header)                                                                      \
    {                                                                                              \
        (page) * UINT64_C(4096) | (kind), (word)                                                   \
    }

static void say_map(const struct tw_record_header *records, uint32_t count)
{
    send_bytes(TW_LANE_BULK, TW_CHUNK_BLOB, TW_BLOB_MAP, 0, records,
               count * (uint32_t)sizeof *records);
}

static void say_map_end(uint64_t lines, uint32_t final)
{
    union tw_control m = {.map_end = {lines, final, 0}};
    say(TW_CONTROL_MAP_END, &m);
}

/* Lines of one page, each byte of them `fill`; returns their digest. */
static uint64_t say_lines(uint64_t page, uint64_t lines, uint8_t fill, enum tw_lane lane)
{
    struct {
        struct tw_record_header header;
        uint8_t bytes[TW_PAGE_SIZE];
    } r = {.header = RECORD(page, TW_RECORD_LINES, lines)};
    uint8_t whole[TW_PAGE_SIZE];
    memset(r.bytes, fill, sizeof r.bytes);
    memset(whole, fill, sizeof whole);
    send_bytes(lane, TW_CHUNK_LINES, 0, 1, &r,
               (uint32_t)(sizeof r.header + tw_popcount(lines) * TW_LINE_SIZE));
    return tw_lines_digest(page, whole, lines);
}

static void say_keep_end(uint64_t lines, uint64_t digest)
{
    union tw_control m = {.keep_end = {EPOCH, lines, digest}};
    say(TW_CONTROL_KEEP_END, &m);
}

/* Lines 1 and 2 of page 3, all of pages 9 to 11. */
#define NAMED 194u
static void name_some(void)
{
    const struct tw_record_header map[] = {RECORD(3, TW_RECORD_ZERO_LINES, 6),
                                           RECORD(9, TW_RECORD_ZERO_PAGES, 3)};
    say_begin(PAGES, EPOCH, TW_METHOD_POST_COPY);
    say_map(map, 2);
    say_map_end(NAMED, 1);
}

/* It has ended, says why here and there, and holds nothing. */
static void expect_refused(const char *text)
{
    struct tw_mirror_progress p;
    turns(100, 10 * TW_MS);
    const struct tw_error *why = tw_mirror_error(d.mirror);
    cr_assert(why && strstr(why->what, text), "%s: %s", text, why ? why->what : "no error");
    cr_assert(d.down);
    cr_assert_neq(d.told.code, TW_OK, "the source is told");
    cr_assert_not(d.kept);
    tw_mirror_progress(d.mirror, &p);
    cr_assert_str_eq(p.phase, "released");
    cr_assert_eq(p.bytes_held, 0);
    close_mirror();
}

/* ---- One thing at a time ----------------------------------------------------------------------
 */

Test(mirror_hostile, what_is_right_is_kept)
{
    meet(1);
    name_some();
    uint64_t digest = say_lines(3, 6, 0x5a, TW_LANE_BULK);
    for (uint64_t page = 9; page < 12; page++)
        digest += say_lines(page, TW_ALL_LINES, 0x11, TW_LANE_BULK);
    say_keep_end(NAMED, digest);
    turns(10, TW_MS);
    cr_assert(d.kept && !d.down);
    close_mirror();
}

Test(mirror_hostile, strangers_are_refused)
{
    struct tw_hello h = hello();
    open_mirror(1);
    h.epoch++;
    connect_as(&h);
    cr_assert(d.down && strstr(d.told.what, "another epoch"), "%s", d.told.what);
    h = hello();
    h.owner[3] ^= 1;
    d.told.code = 0;
    connect_as(&h);
    cr_assert(d.down && strstr(d.told.what, "token"), "%s", d.told.what);
    h = hello();
    connect_as(&h);
    cr_assert(d.up, "the source itself still comes in");
    struct tw_conn *source = d.peer;
    d.told.code = 0;
    connect_as(&h); /* and a second one not */
    cr_assert(d.down && strstr(d.told.what, "nothing is to be had"), "%s", d.told.what);
    d.peer = source;
    name_some();
    cr_assert_not(tw_mirror_error(d.mirror), "the first is not disturbed");
    close_mirror();
}

Test(mirror_hostile, openings_that_are_wrong)
{
    meet(1);
    say_begin(PAGES + 1, EPOCH, TW_METHOD_POST_COPY);
    expect_refused("another memory size or epoch");
    meet(1);
    say_begin(UINT64_MAX / TW_PAGE_SIZE, EPOCH, TW_METHOD_POST_COPY);
    expect_refused("another memory size or epoch");
    meet(1);
    say_begin(PAGES, EPOCH + 1, TW_METHOD_POST_COPY);
    expect_refused("another memory size or epoch");
    meet(1);
    say_begin(PAGES, EPOCH, TW_METHOD_PRE_COPY);
    expect_refused("a pre-copy");
    meet(1);
    say_begin(PAGES, EPOCH, TW_METHOD_HYBRID);
    say_begin(PAGES, EPOCH, TW_METHOD_HYBRID);
    expect_refused("begin out of place");
}

Test(mirror_hostile, maps_that_are_wrong)
{
    const struct {
        struct tw_record_header records[2];
        uint32_t count;
    } wrong[] = {
        {{RECORD(3, TW_RECORD_ZERO_LINES, 6), RECORD(3, TW_RECORD_ZERO_LINES, 4)}, 2},
        {{RECORD(PAGES, TW_RECORD_ZERO_LINES, 1)}, 1},
        {{RECORD(1, TW_RECORD_ZERO_PAGES, PAGES)}, 1},
        {{RECORD(1, TW_RECORD_ZERO_PAGES, UINT64_MAX)}, 1},
        {{RECORD(UINT64_MAX >> 12, TW_RECORD_ZERO_LINES, 1)}, 1},
        {{RECORD(1, TW_RECORD_ZERO_LINES, 0)}, 1},
        {{RECORD(1, TW_RECORD_LINES, 1)}, 1},
        {{RECORD(1, 7, 1)}, 1},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        meet(i);
        say_begin(PAGES, EPOCH, TW_METHOD_POST_COPY);
        say_map(wrong[i].records, wrong[i].count);
        expect_refused("");
    }
    meet(1);
    say_map(wrong[0].records, 1);
    expect_refused("a map out of place");
    static const uint64_t ends[] = {0, NAMED - 1, NAMED + 1, UINT64_MAX};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        const struct tw_record_header map[] = {RECORD(3, TW_RECORD_ZERO_LINES, 6),
                                               RECORD(9, TW_RECORD_ZERO_PAGES, 3)};
        meet(1);
        say_begin(PAGES, EPOCH, TW_METHOD_POST_COPY);
        say_map(map, 2);
        say_map_end(ends[i], 1);
        expect_refused("the end of a map");
    }
    meet(1);
    say_begin(PAGES, EPOCH, TW_METHOD_POST_COPY);
    say_map_end(0, 0); /* an announcement is for destinations */
    expect_refused("the end of a map");
    meet(1);
    name_some();
    say_map(wrong[0].records, 1);
    expect_refused("a map out of place");
}

Test(mirror_hostile, lines_that_are_wrong)
{
    meet(1);
    say_begin(PAGES, EPOCH, TW_METHOD_POST_COPY);
    say_lines(3, 6, 1, TW_LANE_BULK);
    expect_refused("lines out of place");
    meet(1);
    name_some();
    say_lines(3, 7, 1, TW_LANE_BULK);
    expect_refused("not missing");
    meet(1);
    name_some();
    say_lines(PAGES, 1, 1, TW_LANE_BULK);
    expect_refused("");
    meet(1);
    name_some();
    say_lines(UINT64_MAX >> 12, 1, 1, TW_LANE_BULK);
    expect_refused("");
    meet(1);
    name_some();
    say_lines(3, 2, 1, TW_LANE_BULK);
    say_lines(3, 2, 1, TW_LANE_BULK); /* played again */
    expect_refused("not missing");
    meet(1);
    name_some();
    say_lines(3, 2, 1, TW_LANE_URGENT);
    expect_refused("data that overtakes");
    const struct tw_record_header twice[] = {RECORD(9, TW_RECORD_ZERO_LINES, 1),
                                             RECORD(9, TW_RECORD_ZERO_LINES, 1)};
    meet(1);
    name_some();
    send_bytes(TW_LANE_BULK, TW_CHUNK_LINES, 0, 2, twice, sizeof twice);
    expect_refused("twice");
    const struct tw_record_header back[] = {RECORD(10, TW_RECORD_ZERO_LINES, 1),
                                            RECORD(9, TW_RECORD_ZERO_LINES, 1)};
    meet(1);
    name_some();
    send_bytes(TW_LANE_BULK, TW_CHUNK_LINES, 0, 2, back, sizeof back);
    expect_refused("disorder");
    meet(1);
    name_some(); /* a header that counts more records than there are */
    send_bytes(TW_LANE_BULK, TW_CHUNK_LINES, 0, 9, back + 1, sizeof *back);
    expect_refused("number of records");
    meet(1);
    name_some(); /* the lines that it names are not there */
    send_bytes(TW_LANE_BULK, TW_CHUNK_LINES, 0, 1, &RECORD(9, TW_RECORD_LINES, TW_ALL_LINES), 16);
    expect_refused("");
}

Test(mirror_hostile, ends_that_are_wrong)
{
    const struct {
        bool all;
        uint64_t lines, off;
    } wrong[] = {{false, NAMED, 0}, {true, NAMED, 1}, {true, NAMED - 1, 0}, {true, UINT64_MAX, 0}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        meet(i);
        name_some();
        uint64_t digest = say_lines(3, 6, 0x5a, TW_LANE_BULK);
        for (uint64_t page = 9; page < (wrong[i].all ? 12 : 11); page++)
            digest += say_lines(page, TW_ALL_LINES, 0x11, TW_LANE_BULK);
        say_keep_end(wrong[i].lines, digest + wrong[i].off);
        expect_refused("what is held here is not what was sent");
    }
    meet(1);
    say_begin(PAGES, EPOCH, TW_METHOD_POST_COPY);
    say_keep_end(0, 0);
    expect_refused("keep_end out of place");
    meet(1);
    union tw_control release = {.epoch = {EPOCH + 1}};
    say(TW_CONTROL_RELEASE, &release);
    expect_refused("release of another epoch");
    meet(1);
    union tw_control commit = {.epoch = {EPOCH}};
    say(TW_CONTROL_COMMIT, &commit);
    expect_refused("commit out of place");
}

/* It says begin, and never more; or nobody comes. What a map may name is finite. */
Test(mirror_hostile, an_opening_without_end_has_a_deadline)
{
    meet(1);
    say_begin(PAGES, EPOCH, TW_METHOD_POST_COPY);
    for (unsigned n = 0; n < 1200 && !tw_mirror_error(d.mirror); n++)
        turns(1, 100 * TW_MS);
    expect_refused("longer than its limit");
    open_mirror(2);
    turns(30, 100 * TW_MS);
    cr_assert(tw_mirror_error(d.mirror) && tw_mirror_done(d.mirror), "nobody came");
    close_mirror();
}

/* ---- Anything -------------------------------------------------------------------------------- */

static void say_noise(struct tw_random *r)
{
    uint8_t noise[700];
    uint32_t tag = (uint32_t)tw_random_below(r, 18);
    uint32_t size =
        tw_random_below(r, 3) ? tw_control_size(tag) : (uint32_t)tw_random_below(r, sizeof noise);
    for (unsigned i = 0; i < sizeof noise; i++)
        noise[i] = tw_random_below(r, 3) ? 0 : (uint8_t)tw_random_next(r);
    send_bytes(tw_random_below(r, 2) ? TW_LANE_BULK : TW_LANE_URGENT, 1 + tw_random_below(r, 3),
               tag, (uint32_t)tw_random_below(r, 4), noise, size);
}

Test(mirror_hostile, survives_anything_and_keeps_nothing)
{
    for (uint64_t seed = 0; seed < 150; seed++) {
        struct tw_random r = {seed};
        meet(seed);
        if (seed % 3)
            name_some();
        for (unsigned n = 0; n < 12 && d.peer; n++) {
            if (tw_random_below(&r, 2))
                say_noise(&r);
            else
                say_lines(tw_random_below(&r, PAGES + 2), 1 + tw_random_below(&r, 7), 3,
                          TW_LANE_BULK);
        }
        cr_assert_not(d.kept, "seed %lu", (unsigned long)seed);
        tw_conn_close(d.peer);
        d.peer = NULL;
        turns(20, 100 * TW_MS);
        cr_assert(tw_mirror_done(d.mirror), "seed %lu", (unsigned long)seed);
        close_mirror();
    }
}
