/* What every back end must do: greeting, chunks and credits, refusals, ends. */
#include "fabric/backend.h"
#include "fabric/contract_suite.h"

CONTRACT(hello_brings_both_up)
{
    struct world *w = connected(sim);
    cr_assert_str_eq(tw_fabric_kind(w->a.fabric), sim ? "sim" : world_kind());
    cr_assert_eq(w->a.accepts, 1);
    cr_assert_str_eq(tw_conn_peer(w->a.conn)->name, "b");
    cr_assert_str_eq(tw_conn_peer(w->b.conn)->name, "a");
    cr_assert_eq(tw_conn_peer(w->a.conn)->epoch, 5);
    cr_assert_eq(tw_conn_ctx(w->a.conn), &w->a);
    cr_assert_eq(tw_conn_ctx(w->b.conn), &w->b);
    world_close(w);
}

CONTRACT(chunks_arrive_in_order_with_their_fields)
{
    struct world *w = connected(sim);
    for (uint32_t i = 0; i < 10; i++)
        cr_assert_eq(send_n(w->b.conn, TW_LANE_BULK, i, i * 1000), TW_OK);
    cr_assert_not(tw_conn_drained(w->b.conn, TW_LANE_BULK));
    cr_assert(WORLD_UNTIL(w, 1000, tw_conn_drained(w->b.conn, TW_LANE_BULK)));
    cr_assert_eq(w->a.logged, 10);
    for (uint32_t i = 0; i < 10; i++) {
        const struct tw_chunk_header *h = &w->a.log[i].header;
        cr_assert_eq(h->sequence, i);
        cr_assert_eq(h->tag, i);
        cr_assert_eq(h->count, i + 1);
        cr_assert_eq(h->length, i * 1000);
        cr_assert_eq(h->kind, TW_CHUNK_BLOB);
        cr_assert_eq(h->epoch, 5);
        cr_assert_eq(h->owner[3], 0x77);
        cr_assert_eq(w->a.log[i].first, i);
    }
    world_close(w);
}

CONTRACT(a_chunk_is_gathered_in_place)
{
    struct world *w = connected(sim);
    uint8_t *payload = tw_conn_chunk_begin(w->b.conn, TW_LANE_BULK);
    cr_assert_not_null(payload);
    cr_assert_not(tw_conn_drained(w->b.conn, TW_LANE_BULK));
    tw_conn_chunk_release(w->b.conn, TW_LANE_BULK);
    cr_assert(tw_conn_drained(w->b.conn, TW_LANE_BULK));
    payload = tw_conn_chunk_begin(w->b.conn, TW_LANE_BULK);
    memset(payload, 9, TW_CHUNK_PAYLOAD);
    const struct tw_chunk_header h = {.kind = TW_CHUNK_LINES, .length = TW_CHUNK_PAYLOAD};
    cr_assert_eq(tw_conn_chunk_send(w->b.conn, TW_LANE_BULK, &h, NULL), TW_OK);
    cr_assert(WORLD_UNTIL(w, 1000, tw_conn_drained(w->b.conn, TW_LANE_BULK)));
    cr_assert_eq(w->a.sums, 9u * TW_CHUNK_PAYLOAD);
    world_close(w);
}

CONTRACT(credits_bound_what_is_in_flight)
{
    struct world *w = world_open(sim, &(struct tw_fabric_config){.bulk_credits = 3}, NULL);
    cr_assert(world_connect(w));
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(send_n(w->b.conn, TW_LANE_BULK, i, 10), TW_OK);
    cr_assert_eq(send_n(w->b.conn, TW_LANE_BULK, 3, 10), TW_RESOURCE_EXHAUSTED);
    cr_assert_null(tw_conn_chunk_begin(w->b.conn, TW_LANE_BULK));
    cr_assert_eq(send_n(w->b.conn, TW_LANE_URGENT, 0, 10), TW_OK, "has credit of its own");
    struct tw_conn_stats stats;
    tw_conn_stats_get(w->b.conn, &stats);
    cr_assert_eq(stats.credit_stalls, 2);
    cr_assert(WORLD_UNTIL(w, 1000, tw_conn_drained(w->b.conn, TW_LANE_BULK)));
    cr_assert_eq(send_n(w->b.conn, TW_LANE_BULK, 3, 10), TW_OK);
    world_close(w);
}

/* Credits come from what the receiver has consumed, not from what was written somewhere. */
CONTRACT(no_credit_comes_back_from_a_deaf_receiver)
{
    struct world *w =
        world_open(sim, &(struct tw_fabric_config){.idle_timeout_ns = 5 * TW_SEC}, NULL);
    cr_assert(world_connect(w));
    world_cut(w);
    for (unsigned i = 0; i < 16; i++)
        cr_assert_eq(send_n(w->b.conn, TW_LANE_BULK, i, TW_CHUNK_PAYLOAD), TW_OK);
    cr_assert_not(WORLD_UNTIL(w, 100, tw_conn_chunk_begin(w->b.conn, TW_LANE_BULK)));
    world_mend(w);
    cr_assert(WORLD_UNTIL(w, 2000, tw_conn_drained(w->b.conn, TW_LANE_BULK)));
    cr_assert_eq(w->a.chunks[TW_LANE_BULK], 16);
    world_close(w);
}

CONTRACT(urgent_overtakes_bulk)
{
    struct world *w = connected(sim);
    for (unsigned i = 0; i < 16; i++)
        cr_assert_eq(send_n(w->b.conn, TW_LANE_BULK, i, TW_CHUNK_PAYLOAD), TW_OK);
    cr_assert_eq(send_n(w->b.conn, TW_LANE_URGENT, 99, 64), TW_OK);
    cr_assert(WORLD_UNTIL(w, 1000, tw_conn_drained(w->b.conn, TW_LANE_BULK)));
    unsigned at = 0;
    while (w->a.log[at].lane != TW_LANE_URGENT)
        at++;
    cr_assert_leq(at, 2, "after %u bulk chunks", at);
    cr_assert_eq(w->a.log[at].header.sequence, 0, "each lane counts by itself");
    world_close(w);
}

CONTRACT(thousands_both_ways)
{
    struct world *w = connected(sim);
    const unsigned total = 3000;
    unsigned sent[2] = {0};
    struct side *sides[2] = {&w->a, &w->b};
    const uint64_t until = tw_now(w->clock) + 60 * TW_SEC;
    while (w->a.chunks[0] + w->a.chunks[1] < total || w->b.chunks[0] + w->b.chunks[1] < total) {
        cr_assert_lt(tw_now(w->clock), until);
        for (unsigned s = 0; s < 2; s++)
            for (enum tw_lane lane; sent[s] < total; sent[s]++) {
                lane = sent[s] % 5 == 0 ? TW_LANE_URGENT : TW_LANE_BULK;
                const uint32_t length = sent[s] * 7919 % 9000;
                if (send_n(sides[s]->conn, lane, sent[s] % 200, length))
                    break;
            }
        world_step(w);
    }
    for (unsigned s = 0; s < 2; s++) {
        cr_assert_eq(sides[s]->downs, 0);
        cr_assert_eq(sides[s]->chunks[TW_LANE_URGENT], total / 5);
        cr_assert(WORLD_UNTIL(w, 1000,
                              tw_conn_drained(sides[s]->conn, TW_LANE_BULK) &&
                                  tw_conn_drained(sides[s]->conn, TW_LANE_URGENT)));
    }
    cr_assert_eq(w->a.bytes[0] + w->a.bytes[1], w->b.bytes[0] + w->b.bytes[1]);
    struct tw_conn_stats a, b;
    tw_conn_stats_get(w->a.conn, &a);
    tw_conn_stats_get(w->b.conn, &b);
    cr_assert_eq(a.chunks_sent, total);
    cr_assert_eq(a.chunks_received, total);
    cr_assert_gt(a.bytes_sent, w->b.bytes[0] + w->b.bytes[1] + total * 64);
    cr_assert_lt(a.bytes_sent, w->b.bytes[0] + w->b.bytes[1] + total * (64 + 64 + 64));
    world_close(w);
}

CONTRACT(answers_from_inside_on_chunk)
{
    struct world *w = connected(sim);
    w->a.echo = true;
    for (unsigned i = 0; i < 200; i++) {
        cr_assert_eq(send_n(w->b.conn, TW_LANE_URGENT, i, 100), TW_OK);
        cr_assert(WORLD_UNTIL(w, 1000,
                              w->b.chunks[TW_LANE_URGENT] == i + 1 &&
                                  tw_conn_drained(w->b.conn, TW_LANE_URGENT)));
    }
    cr_assert_eq(w->a.echoes_lost, 0);
    cr_assert_eq(w->a.sums, w->b.sums);
    world_close(w);
}

/* What the server sends in or right after on_accept reaches the client after its on_up. */
CONTRACT(server_may_speak_first)
{
    struct world *w = world_open(sim, NULL, NULL);
    const struct tw_hello hello = world_hello();
    cr_assert_eq(tw_fabric_connect(w->b.fabric, tw_fabric_address(w->a.fabric), &hello,
                                   tw_now(w->clock) + TW_SEC, &w->b, &w->b.conn, NULL),
                 TW_OK);
    cr_assert_null(tw_conn_chunk_begin(w->b.conn, TW_LANE_BULK), "not up yet");
    cr_assert_eq(send_n(w->b.conn, TW_LANE_BULK, 1, 10), TW_UNAVAILABLE);
    cr_assert(WORLD_UNTIL(w, 1000, w->a.accepts == 1));
    cr_assert_eq(send_n(w->a.conn, TW_LANE_URGENT, 1, 10), TW_OK);
    cr_assert_eq(send_n(w->a.conn, TW_LANE_BULK, 1, 10), TW_OK);
    cr_assert(WORLD_UNTIL(w, 1000, w->b.chunks[0] == 1 && w->b.chunks[1] == 1));
    cr_assert_eq(w->b.ups, 1);
    world_close(w);
}

/* ---- Refusals -------------------------------------------------------------------------------- */

CONTRACT(owner_refuses_with_code_and_text)
{
    struct world *w = world_open(sim, NULL, NULL);
    w->a.refuse = TW_PERMISSION_DENIED;
    cr_assert_not(world_connect(w));
    cr_assert_eq(w->b.downs, 1);
    cr_assert_eq(w->b.why.code, TW_PERMISSION_DENIED);
    cr_assert_not_null(strstr(w->b.why.what, "not today"), "%s", w->b.why.what);
    cr_assert_not_null(strstr(w->b.why.what, "vm web-1"), "%s", w->b.why.what);
    cr_assert_eq(w->a.downs, 0, "it was never the owner's");
    w->a.refuse = TW_OK;
    cr_assert(world_connect(w), "the next one is welcome");
    world_close(w);
}

CONTRACT(versions_that_do_not_meet)
{
    struct world *w = world_open(sim, NULL, NULL);
    struct tw_hello hello = world_hello();
    hello.version = hello.version_min = 9;
    cr_assert_eq(tw_fabric_connect(w->b.fabric, tw_fabric_address(w->a.fabric), &hello,
                                   tw_now(w->clock) + TW_SEC, &w->b, &w->b.conn, NULL),
                 TW_OK);
    cr_assert(WORLD_UNTIL(w, 1000, w->b.downs == 1));
    cr_assert_eq(w->b.why.code, TW_FAILED_PRECONDITION, "%s", w->b.why.what);
    cr_assert_not_null(strstr(w->b.why.what, "9 to 9"), "%s", w->b.why.what);
    cr_assert_eq(w->a.accepts, 0, "the owner is not bothered");
    world_close(w);
}

CONTRACT(newer_peer_that_speaks_the_old_version)
{
    struct world *w = world_open(sim, NULL, NULL);
    struct tw_hello hello = world_hello();
    hello.version = 9;
    hello.version_min = 1;
    hello.capabilities = UINT32_MAX;
    cr_assert_eq(tw_fabric_connect(w->b.fabric, tw_fabric_address(w->a.fabric), &hello,
                                   tw_now(w->clock) + TW_SEC, &w->b, &w->b.conn, NULL),
                 TW_OK);
    cr_assert(WORLD_UNTIL(w, 1000, w->b.ups == 1));
    world_close(w);
}

CONTRACT(connections_are_limited)
{
    struct world *w = world_open(sim, &(struct tw_fabric_config){.max_connections = 2}, NULL);
    cr_assert(world_connect(w));
    cr_assert(world_connect(w));
    const struct tw_hello hello = world_hello();
    struct tw_conn *conn;
    struct tw_error err;
    cr_assert_eq(tw_fabric_connect(w->b.fabric, tw_fabric_address(w->a.fabric), &hello, TW_NEVER,
                                   &w->b, &conn, &err),
                 TW_RESOURCE_EXHAUSTED);
    cr_assert_null(conn);
    tw_conn_close(w->b.conn);
    w->b.conn = NULL;
    cr_assert(WORLD_UNTIL(w, 1000, w->a.downs == 1));
    cr_assert(world_connect(w), "there is room again");
    world_close(w);
}

CONTRACT(nobody_listens)
{
    struct world *w = world_open(sim, NULL, NULL);
    const struct tw_hello hello = world_hello();
    char address[TW_FABRIC_ADDRESS_MAX];
    memcpy(address, tw_fabric_address(w->a.fabric), sizeof address);
    tw_fabric_close(w->a.fabric);
    w->a.fabric = NULL;
    w->a_is_deaf = true;
    cr_assert_eq(tw_fabric_connect(w->b.fabric, address, &hello, tw_now(w->clock) + TW_SEC, &w->b,
                                   &w->b.conn, NULL),
                 TW_OK);
    cr_assert(WORLD_UNTIL(w, 2000, w->b.downs == 1));
    cr_assert_eq(w->b.why.code, TW_UNAVAILABLE);
    cr_assert_eq(w->b.ups, 0);
    world_close(w);
}

CONTRACT(connect_ends_by_its_deadline)
{
    struct world *w = world_open(sim, NULL, NULL);
    const struct tw_hello hello = world_hello();
    world_cut(w);
    const uint64_t before = tw_now(w->clock);
    cr_assert_eq(tw_fabric_connect(w->b.fabric, tw_fabric_address(w->a.fabric), &hello,
                                   before + 150 * TW_MS, &w->b, &w->b.conn, NULL),
                 TW_OK);
    cr_assert(WORLD_UNTIL(w, 2000, w->b.downs == 1));
    cr_assert_geq(tw_now(w->clock) - before, 150 * TW_MS);
    cr_assert_lt(tw_now(w->clock) - before, 400 * TW_MS);
    cr_assert_eq(w->b.why.code, TW_DEADLINE_EXCEEDED);
    world_close(w);
}

/* ---- Ends ------------------------------------------------------------------------------------ */

CONTRACT(close_is_silent_here_and_heard_there)
{
    struct world *w = connected(sim);
    cr_assert_eq(send_n(w->b.conn, TW_LANE_URGENT, 1, 10), TW_OK);
    tw_conn_close(w->b.conn);
    w->b.conn = NULL;
    cr_assert(WORLD_UNTIL(w, 1000, w->a.downs == 1));
    cr_assert_eq(w->a.why.code, TW_UNAVAILABLE);
    cr_assert_eq(w->a.chunks[TW_LANE_URGENT], 1, "what was urgent went first");
    cr_assert_eq(w->b.downs, 0);
    tw_conn_close(NULL);
    world_close(w);
}

CONTRACT(close_inside_on_chunk)
{
    struct world *w = connected(sim);
    w->a.close_in_chunk = true;
    for (unsigned i = 0; i < 5; i++)
        cr_assert_eq(send_n(w->b.conn, TW_LANE_BULK, i, 100), TW_OK);
    cr_assert(WORLD_UNTIL(w, 1000, w->b.downs == 1));
    cr_assert_eq(w->a.chunks[TW_LANE_BULK], 1);
    cr_assert_eq(w->a.downs, 0);
    world_close(w);
}

CONTRACT(fabric_that_closes_takes_its_connections_along)
{
    struct world *w = connected(sim);
    cr_assert(world_connect(w));
    tw_fabric_close(w->b.fabric);
    w->b.fabric = NULL;
    tw_fabric_close(NULL);
    cr_assert(WORLD_UNTIL(w, 1000, w->a.downs == 2));
    cr_assert_eq(w->b.downs, 0);
    world_close(w);
}

CONTRACT(silence_brings_the_connection_down)
{
    struct world *w = connected(sim);
    world_cut(w);
    const uint64_t before = tw_now(w->clock);
    cr_assert(WORLD_UNTIL(w, 2000, w->b.downs == 1));
    const uint64_t took = tw_now(w->clock) - before;
    cr_assert_geq(took, 290 * TW_MS, "%llu", (unsigned long long)took);
    if (strcmp(world_kind(), "verbs") != 0) /* Soft-iWARP may hold poll: docs/fabric.md */
        cr_assert_lt(took, 600 * TW_MS, "%llu", (unsigned long long)took);
    cr_assert_eq(w->b.why.code, TW_UNAVAILABLE);
    world_mend(w);
    cr_assert(WORLD_UNTIL(w, 2000, w->a.downs == 1));
    world_close(w);
}

CONTRACT(keepalives_hold_an_idle_connection)
{
    struct world *w = connected(sim);
    cr_assert_not(WORLD_UNTIL(w, 1300, w->a.downs || w->b.downs));
    cr_assert_eq(send_n(w->b.conn, TW_LANE_BULK, 1, 10), TW_OK);
    cr_assert(WORLD_UNTIL(w, 1000, w->a.logged == 1));
    world_close(w);
}

CONTRACT(short_cut_loses_nothing)
{
    struct world *w = connected(sim);
    world_cut(w);
    for (unsigned i = 0; i < 10; i++)
        cr_assert_eq(send_n(w->b.conn, i % 2 ? TW_LANE_BULK : TW_LANE_URGENT, i, 1000), TW_OK);
    cr_assert_not(WORLD_UNTIL(w, 150, w->a.logged > 0));
    world_mend(w);
    cr_assert(WORLD_UNTIL(w, 1000, w->a.logged == 10));
    cr_assert_eq(w->a.downs + w->b.downs, 0);
    world_close(w);
}

CONTRACT(a_dead_connection_takes_nothing)
{
    struct world *w = connected(sim);
    struct tw_conn *conn = w->b.conn;
    struct tw_error err;
    tw_fail(&err, TW_DATA_LOSS, "x", NULL, NULL, "gone");
    tw_conn_lost(conn, &err); /* on_down is due, not yet given */
    cr_assert_null(tw_conn_chunk_begin(conn, TW_LANE_BULK));
    cr_assert_eq(tw_conn_send(conn, TW_LANE_BULK, TW_CHUNK_BLOB, 0, 0, "x", 1, &err),
                 TW_UNAVAILABLE);
    cr_assert_not_null(strstr(err.what, "gone"));
    world_step(w);
    cr_assert_eq(w->b.downs, 1);
    world_close(w);
}

CONTRACT(many_connections)
{
    /* Bringing up the last takes an emulated device longer than the first may be silent. */
    struct world *w =
        world_open(sim, &(struct tw_fabric_config){.idle_timeout_ns = 20 * TW_SEC}, NULL);
    struct tw_conn *conns[40];
    for (unsigned i = 0; i < 40; i++) {
        cr_assert(world_connect(w), "connection %u: %s %s", i, w->b.why.what, w->b.why.given);
        conns[i] = w->b.conn;
    }
    for (unsigned turn = 0; turn < 5; turn++)
        for (unsigned i = 0; i < 40; i++)
            cr_assert_eq(send_n(conns[i], TW_LANE_BULK, i, 5000), TW_OK);
    cr_assert(WORLD_UNTIL(w, 20000, w->a.chunks[TW_LANE_BULK] == 200));
    for (unsigned i = 0; i < 40; i += 2)
        tw_conn_close(conns[i]);
    cr_assert(WORLD_UNTIL(w, 20000, w->a.downs == 20));
    for (unsigned i = 1; i < 40; i += 2)
        cr_assert_eq(send_n(conns[i], TW_LANE_URGENT, i, 50), TW_OK);
    cr_assert(WORLD_UNTIL(w, 20000, w->a.chunks[TW_LANE_URGENT] == 20));
    world_close(w);
}
