/* One-sided reads, on every back end. */
#include "fabric/backend.h"
#include "fabric/contract_suite.h"

CONTRACT(reads_are_answered_by_the_fabric)
{
    struct world *w = connected(sim);
    static uint8_t memory[3 * TW_CHUNK_PAYLOAD], into[TW_CHUNK_PAYLOAD];
    const struct tw_hello hello = world_hello();
    uint32_t key;
    for (unsigned i = 0; i < sizeof memory; i++)
        memory[i] = (uint8_t)(i >> 8 ^ i);
    cr_assert_eq(tw_fabric_register(w->a.fabric, memory, sizeof memory, hello.owner, &key, NULL),
                 TW_OK);
    const struct {
        uint64_t address;
        uint32_t length;
    } cases[] = {{0, 64}, {4096, 4096}, {77, TW_CHUNK_PAYLOAD}, {sizeof memory - 1, 1}};
    for (unsigned i = 0; i < 4; i++) {
        cr_assert_eq(tw_conn_read(w->b.conn, key, cases[i].address, cases[i].length, into, i, NULL),
                     TW_OK);
        cr_assert(WORLD_UNTIL(w, 1000, w->b.reads == i + 1));
        cr_assert_eq(w->b.read_code, TW_OK);
        cr_assert_eq(w->b.cookie, i);
        cr_assert_arr_eq(into, memory + cases[i].address, cases[i].length);
    }
    cr_assert_eq(w->a.logged, 0);
    world_close(w);
}

CONTRACT(reads_outside_end_in_out_of_range)
{
    struct world *w = connected(sim);
    uint8_t memory[4096], into[64] = {0};
    struct tw_hello hello = world_hello();
    uint32_t key, foreign, old;
    cr_assert_eq(tw_fabric_register(w->a.fabric, memory, 4096, hello.owner, &key, NULL), TW_OK);
    cr_assert_eq(tw_fabric_register(w->a.fabric, memory, 4096, hello.owner, &old, NULL), TW_OK);
    tw_fabric_unregister(w->a.fabric, old);
    hello.owner[15] ^= 1;
    cr_assert_eq(tw_fabric_register(w->a.fabric, memory, 4096, hello.owner, &foreign, NULL), TW_OK);
    const struct {
        uint32_t key;
        uint64_t address;
    } cases[] = {{key, 4096 - 63}, {key, UINT64_MAX - 10}, {foreign, 0}, {old, 0}, {4711, 0}};
    for (unsigned i = 0; i < 5; i++) {
        cr_assert_eq(tw_conn_read(w->b.conn, cases[i].key, cases[i].address, 64, into, i, NULL),
                     TW_OK);
        cr_assert(WORLD_UNTIL(w, 1000, w->b.reads == i + 1));
        cr_assert_eq(w->b.read_code, TW_OUT_OF_RANGE, "case %u", i);
    }
    cr_assert_eq(w->b.downs, 0, "the connection goes on");
    cr_assert_eq(into[0], 0);
    world_close(w);
}

CONTRACT(reads_are_bounded_and_end_with_the_connection)
{
    struct world *w = connected(sim);
    uint8_t into[64];
    world_cut(w);
    for (unsigned i = 0; i < TW_READS_MAX; i++)
        cr_assert_eq(tw_conn_read(w->b.conn, 1, 0, 64, into, i, NULL), TW_OK);
    cr_assert_eq(tw_conn_read(w->b.conn, 1, 0, 64, into, 99, NULL), TW_RESOURCE_EXHAUSTED);
    cr_assert_eq(tw_conn_read(w->b.conn, 1, 0, TW_CHUNK_PAYLOAD + 1, into, 99, NULL),
                 TW_INVALID_ARGUMENT);
    cr_assert(WORLD_UNTIL(w, 2000, w->b.downs == 1));
    cr_assert_eq(w->b.reads, TW_READS_MAX);
    cr_assert_eq(w->b.read_code, TW_UNAVAILABLE);
    world_close(w);
}

CONTRACT(regions_are_limited)
{
    struct world *w = world_open(sim, NULL, NULL);
    const struct tw_hello hello = world_hello();
    const uint8_t byte = 0;
    uint32_t key;
    for (unsigned i = 0; i < TW_REGIONS_MAX; i++)
        cr_assert_eq(tw_fabric_register(w->a.fabric, &byte, 1, hello.owner, &key, NULL), TW_OK);
    cr_assert_eq(tw_fabric_register(w->a.fabric, &byte, 1, hello.owner, &key, NULL),
                 TW_RESOURCE_EXHAUSTED);
    world_close(w);
}
