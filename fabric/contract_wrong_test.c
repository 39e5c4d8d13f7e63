/* Chunks that are not right: no back end lets one through, and both sides learn why. */
#include "fabric/backend.h"
#include "fabric/contract_suite.h"

/* The sender's own connection does not send until the caller has spoilt what lies in its ring. */
static void send_spoilt(struct tw_conn *conn, unsigned flip_at)
{
    const uint64_t sequence = conn->lanes[TW_LANE_BULK].next;
    conn->fabric->polling = true;
    cr_assert_eq(send_n(conn, TW_LANE_BULK, 1, 100), TW_OK);
    conn->fabric->polling = false;
    conn->lanes[TW_LANE_BULK]
        .ring[sequence % conn->lanes[TW_LANE_BULK].credits * TW_FRAME_MAX + flip_at] ^= 4;
    tw_conn_settle(conn);
}

/* Both go down: a with `code`, b with a's word. a's owner never saw the chunk. */
static void expect_down(struct world *w, enum tw_code code)
{
    cr_assert(WORLD_UNTIL(w, 1000, w->a.downs == 1 && w->b.downs == 1));
    cr_expect_eq(w->a.why.code, code, "%s: %s", w->a.why.where, w->a.why.what);
    cr_expect_eq(w->b.why.code, code, "%s: %s", w->b.why.where, w->b.why.what);
    cr_expect_eq(w->a.logged, 0);
    cr_expect_null(w->a.conn);
    cr_expect_not_null(strstr(w->a.why.where, "b ("), "%s", w->a.why.where);
    world_close(w);
}

CONTRACT(foreign_token)
{
    struct world *w = connected(sim);
    w->b.conn->ours.owner[0] ^= 1;
    cr_assert_eq(send_n(w->b.conn, TW_LANE_BULK, 1, 10), TW_OK);
    expect_down(w, TW_PERMISSION_DENIED);
}

CONTRACT(other_epoch)
{
    struct world *w = connected(sim);
    w->b.conn->ours.epoch++;
    cr_assert_eq(send_n(w->b.conn, TW_LANE_URGENT, 1, 10), TW_OK);
    expect_down(w, TW_FAILED_PRECONDITION);
}

CONTRACT(flipped_bit_in_a_payload)
{
    struct world *w = connected(sim);
    send_spoilt(w->b.conn, TW_FRAME_HEADER + 77);
    expect_down(w, TW_DATA_LOSS);
}

CONTRACT(flipped_bit_in_a_header)
{
    struct world *w = connected(sim);
    send_spoilt(w->b.conn, offsetof(struct tw_chunk_header, tag));
    expect_down(w, TW_DATA_LOSS);
}

CONTRACT(chunk_of_another_version)
{
    struct world *w = connected(sim);
    send_spoilt(w->b.conn, offsetof(struct tw_chunk_header, version));
    expect_down(w, TW_FAILED_PRECONDITION);
}

CONTRACT(replayed_chunk)
{
    struct world *w = connected(sim);
    cr_assert_eq(send_n(w->b.conn, TW_LANE_BULK, 1, 10), TW_OK);
    cr_assert(WORLD_UNTIL(w, 1000, tw_conn_drained(w->b.conn, TW_LANE_BULK)));
    w->a.logged = 0;
    w->b.conn->lanes[TW_LANE_BULK].next = w->b.conn->lanes[TW_LANE_BULK].pulled = 0;
    w->b.conn->lanes[TW_LANE_BULK].consumed = 0;
    cr_assert_eq(send_n(w->b.conn, TW_LANE_BULK, 1, 10), TW_OK);
    expect_down(w, TW_DATA_LOSS);
}

CONTRACT(missing_chunk)
{
    struct world *w = connected(sim);
    w->b.conn->lanes[TW_LANE_BULK].next = w->b.conn->lanes[TW_LANE_BULK].pulled = 1;
    cr_assert_eq(send_n(w->b.conn, TW_LANE_BULK, 1, 10), TW_OK);
    expect_down(w, TW_DATA_LOSS);
}

CONTRACT(receiver_refuses_a_chunk)
{
    struct world *w = connected(sim);
    w->a.spoil = TW_RESOURCE_EXHAUSTED;
    cr_assert_eq(send_n(w->b.conn, TW_LANE_BULK, 1, 10), TW_OK);
    cr_assert(WORLD_UNTIL(w, 1000, w->a.downs == 1 && w->b.downs == 1));
    cr_assert_eq(w->a.why.code, TW_RESOURCE_EXHAUSTED);
    cr_assert_eq(w->b.why.code, TW_RESOURCE_EXHAUSTED);
    cr_assert_not_null(strstr(w->b.why.what, "cannot take it"), "%s", w->b.why.what);
    world_close(w);
}

CONTRACT(credit_for_nothing)
{
    struct world *w = connected(sim);
    w->b.conn->lanes[TW_LANE_BULK].expected = 7;
    world_step(w);
    expect_down(w, TW_INVALID_ARGUMENT);
}
