/* What the files of the contract's test share. A test of the contract runs on every back end. */
#ifndef TOWLINE_FABRIC_CONTRACT_SUITE_H
#define TOWLINE_FABRIC_CONTRACT_SUITE_H

#include "fabric/contract.h"

#include <criterion/criterion.h>
#include <string.h>

#define CONTRACT(name)                                                                             \
    static void name(bool sim);                                                                    \
    Test(sim, name)                                                                                \
    {                                                                                              \
        name(true);                                                                                \
    }                                                                                              \
    Test(tcp, name)                                                                                \
    {                                                                                              \
        name(false);                                                                               \
    }                                                                                              \
    Test(tls, name)                                                                                \
    {                                                                                              \
        world_use_tls();                                                                           \
        name(false);                                                                               \
    }                                                                                              \
    Test(verbs, name)                                                                              \
    {                                                                                              \
        if (!world_use_verbs(NULL))                                                                \
            cr_skip_test("no RDMA device is named in TOWLINE_VERBS_ADDRESS");                      \
        name(false);                                                                               \
    }                                                                                              \
    static void name(bool sim)

/* A new world whose two sides are connected; world_close() it. */
static inline struct world *connected(bool sim)
{
    struct world *w = world_open(sim, NULL, NULL);
    cr_assert(world_connect(w), "%s: %s", w->b.why.where, w->b.why.what);
    return w;
}

/* A chunk whose bytes are all `tag`. */
static inline enum tw_code send_n(struct tw_conn *conn, enum tw_lane lane, uint32_t tag,
                                  uint32_t length)
{
    static uint8_t block[TW_CHUNK_PAYLOAD];
    memset(block, (int)tag, length);
    return tw_conn_send(conn, lane, TW_CHUNK_BLOB, tag, tag + 1, block, length, NULL);
}

#endif
