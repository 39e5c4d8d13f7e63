/* The scenarios: what every attachment goes through. */
#include "tests/attachments/contract.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 4096u

static uint32_t pick(struct contract *c, uint32_t bound)
{
    return (uint32_t)tw_random_below(&c->random, bound);
}

/* ---- Kinds of stores ------------------------------------------------------------------------- */

/* Each kind alone, in a page that has been reported and in one that has not. */
static void kinds_are_told_or_hidden_as_stated(struct contract *c)
{
    contract_begin(c, 0, 0, CONTRACT_PAGES);
    for (unsigned round = 0; round < 2; round++) {
        for (uint32_t kind = 0; kind < CONTRACT_KINDS; kind++) {
            const uint32_t size = kind == CONTRACT_SET || kind == CONTRACT_COPY ? 200 : 4;
            contract_store(c, kind, kind * PAGE + (7 + round) * 64 + 8, size);
            contract_collect(c, 0);
        }
    }
}

static void sizes_and_borders(struct contract *c)
{
    static const uint32_t sizes[] = {1, 2, 4, 8};
    contract_begin(c, 0, 0, CONTRACT_PAGES);
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 4; i++) {
            contract_store(c, CONTRACT_STORE, 64 * i + 3, sizes[i]);
            contract_store(c, CONTRACT_STORE, PAGE + 64 * i + 63, sizes[i]);     /* two lines */
            contract_store(c, CONTRACT_STORE, (3 + 2 * i) * PAGE - 1, sizes[i]); /* two pages */
            contract_collect(c, 0);
        }
        contract_store(c, CONTRACT_SET, 12 * PAGE + 100, 3 * PAGE);
        contract_store(c, CONTRACT_STORE, CONTRACT_BYTES - 1, 1);
        contract_store(c, CONTRACT_STORE, 0, 1);
        contract_collect(c, 0);
    }
}

/* ---- Epochs ---------------------------------------------------------------------------------- */

/* R1: also when a cache holds the lines modified, and for lines that are stored to again. */
static void stores_before_the_start_are_not_told(struct contract *c)
{
    for (uint32_t page = 0; page < 8; page++)
        contract_store(c, CONTRACT_STORE, page * PAGE + 64, 8);
    contract_begin(c, 0, 0, 8);
    contract_collect(c, 0);
    contract_store(c, CONTRACT_STORE, 2 * PAGE + 64, 8);
    contract_collect(c, 0);
}

/* R2: what a cache still holds belongs to the epoch; and it is told once. */
static void a_line_is_told_once_an_epoch(struct contract *c)
{
    contract_begin(c, 0, 0, CONTRACT_PAGES);
    for (unsigned epoch = 0; epoch < 5; epoch++) {
        for (unsigned i = 0; i < 10; i++)
            contract_store(c, CONTRACT_STORE, 5 * PAGE + 64 * 9, 8);
        contract_collect(c, 0);
        contract_collect(c, 0);
    }
}

static void sessions_that_overlap_have_epochs_of_their_own(struct contract *c)
{
    contract_begin(c, 0, 0, 8);
    contract_store(c, CONTRACT_STORE, 5 * PAGE, 8);
    contract_begin(c, 1, 4, 8);
    contract_store(c, CONTRACT_STORE, 6 * PAGE, 8);
    contract_begin(c, 2, 6, 1);
    contract_collect(c, 2);
    contract_collect(c, 1);
    contract_store(c, CONTRACT_STORE, 6 * PAGE + 128, 8);
    contract_end(c, 1);
    contract_store(c, CONTRACT_STORE, 5 * PAGE + 64, 8);
    contract_collect(c, 0);
    contract_collect(c, 2);
}

/* Nothing of the time between is told. */
static void stop_and_start_again(struct contract *c)
{
    contract_begin(c, 0, 0, 4);
    contract_store(c, CONTRACT_STORE, 64, 8);
    contract_collect(c, 0);
    contract_store(c, CONTRACT_STORE, 128, 8);
    contract_end(c, 0);
    contract_store(c, CONTRACT_STORE, 192, 8);
    contract_begin(c, 0, 0, 4);
    contract_collect(c, 0);
    contract_store(c, CONTRACT_STORE, 256, 8);
    contract_collect(c, 0);
}

/* The same while another session keeps the attachment busy. */
static void a_late_session_beside_another(struct contract *c)
{
    contract_begin(c, 0, 0, 4);
    contract_begin(c, 1, 8, 4);
    contract_store(c, CONTRACT_STORE, 64, 8);
    contract_collect(c, 0);
    contract_end(c, 0);
    contract_store(c, CONTRACT_STORE, 192, 8);
    contract_store(c, CONTRACT_STORE, 5 * PAGE, 8);
    contract_collect(c, 1);
    contract_begin(c, 0, 0, 8);
    contract_store(c, CONTRACT_STORE, 256, 8);
    contract_store(c, CONTRACT_STORE, 5 * PAGE + 640, 8);
    contract_collect(c, 0);
    contract_collect(c, 1);
}

/* ---- Loads ----------------------------------------------------------------------------------- */

/* A line counts in each epoch in which it is accessed, also where a cache still holds it; and a
 * load is no store. */
static void loads_are_accesses_and_no_stores(struct contract *c)
{
    contract_store(c, CONTRACT_LOAD, 64, 8);
    contract_store(c, CONTRACT_STORE, 3 * PAGE, 8);
    contract_begin(c, 0, 0, 8);
    contract_collect(c, 0);
    for (unsigned epoch = 0; epoch < 3; epoch++) {
        contract_store(c, CONTRACT_LOAD, 64, 8);
        contract_store(c, CONTRACT_LOAD, 64 + epoch, 1);
        contract_store(c, CONTRACT_LOAD, 3 * PAGE, 8); /* perhaps modified in a cache */
        contract_store(c, CONTRACT_LOAD, 2 * PAGE - 3, 8);
        contract_collect(c, 0);
        contract_collect(c, 0);
        contract_store(c, CONTRACT_LOAD, 5 * PAGE, 4);
        contract_store(c, CONTRACT_STORE, 5 * PAGE + 8, 4);
        contract_store(c, CONTRACT_STORE, 6 * PAGE + 8, 4);
        contract_store(c, CONTRACT_LOAD, 6 * PAGE, 4);
        contract_collect(c, 0);
    }
}

static void sessions_have_accesses_of_their_own(struct contract *c)
{
    contract_begin(c, 0, 0, 8);
    contract_store(c, CONTRACT_LOAD, 5 * PAGE, 8);
    contract_store(c, CONTRACT_STORE, 6 * PAGE, 8);
    contract_begin(c, 1, 4, 8);
    contract_store(c, CONTRACT_LOAD, 6 * PAGE, 8);
    contract_collect(c, 1);
    contract_store(c, CONTRACT_LOAD, 5 * PAGE, 8);
    contract_collect(c, 0);
    contract_collect(c, 1);
    contract_end(c, 0);
    contract_store(c, CONTRACT_LOAD, 5 * PAGE, 8);
    contract_collect(c, 1);
}

/* ---- At random ------------------------------------------------------------------------------- */

static void store_something(struct contract *c)
{
    const enum contract_kind kind = pick(c, CONTRACT_KINDS);
    const uint32_t word = pick(c, CONTRACT_BYTES / 4) * 4;
    switch (kind) {
    case CONTRACT_STORE:
    case CONTRACT_SAME:
    case CONTRACT_LOAD:
        contract_store(c, kind, pick(c, CONTRACT_BYTES - 8), 1u << pick(c, 4));
        break;
    case CONTRACT_SET:
        contract_store(c, kind, pick(c, CONTRACT_BYTES), 1 + pick(c, 3 * PAGE));
        break;
    case CONTRACT_COPY:
    case CONTRACT_KERNEL:
    case CONTRACT_OUTSIDE:
        contract_store(c, kind, pick(c, CONTRACT_BYTES), 1 + pick(c, 256));
        break;
    default:
        contract_store(c, kind, word, 4);
        break;
    }
}

static void anything(struct contract *c)
{
    for (unsigned step = 0; step < 150 && !c->objections; step++) {
        const unsigned consumer = pick(c, CONTRACT_CONSUMERS);
        const uint32_t first = pick(c, CONTRACT_PAGES);
        const bool tracks = c->consumers[consumer].tracker != NULL;
        for (uint32_t i = pick(c, 6); i > 0; i--)
            store_something(c);
        if (!tracks)
            contract_begin(c, consumer, first, 1 + pick(c, CONTRACT_PAGES - first));
        else if (pick(c, 5) == 0)
            contract_end(c, consumer);
        else
            contract_collect(c, consumer);
    }
}

/* ---- Under way ------------------------------------------------------------------------------- */

static void copy_epoch(struct contract *c, uint8_t *copy)
{
    contract_pass(c);
    contract_take(c, 0);
    c->world.kind->read(&c->world, c->now);
    for (uint32_t line = 0; line < CONTRACT_LINES; line++) {
        if (c->consumers[0].told[line / 64] >> (line % 64) & 1) {
            memcpy(copy + line * 64, c->now + line * 64, 64);
            if (line % 2 && !c->consumers[0].told_whole[line / 64])
                contract_object(c, "line %u is told, and nobody stores there", line);
        }
    }
}

/* R3: a copy that is brought up to date by what is told, while the program stores, is equal to its
 * memory when the program has stopped. */
static void nothing_is_lost_while_the_program_stores(struct contract *c)
{
    uint8_t *copy = malloc(CONTRACT_BYTES);
    if (!copy)
        abort();
    contract_begin(c, 0, 0, CONTRACT_PAGES);
    c->world.kind->read(&c->world, copy);
    c->world.kind->storm(&c->world, true);
    uint64_t told = 0;
    for (unsigned epoch = 0; epoch < 30 || (told < 1000 && epoch < 100000); epoch++) {
        copy_epoch(c, copy);
        for (uint32_t page = 0; page < CONTRACT_PAGES; page++)
            told += tw_popcount(c->consumers[0].told[page]);
    }
    c->world.kind->storm(&c->world, false);
    copy_epoch(c, copy);
    for (uint32_t line = 0; line < CONTRACT_LINES; line++) {
        if (memcmp(copy + line * 64, c->now + line * 64, 64) != 0)
            contract_object(c, "a store to line %u is lost", line);
    }
    if (told < 1000)
        contract_object(c, "the program hardly stores");
    free(copy);
}

const struct contract_scenario contract_scenarios[] = {
    {"kinds are told or hidden as stated", kinds_are_told_or_hidden_as_stated},
    {"sizes and borders", sizes_and_borders},
    {"stores before the start are not told", stores_before_the_start_are_not_told},
    {"a line is told once an epoch", a_line_is_told_once_an_epoch},
    {"sessions that overlap have epochs of their own",
     sessions_that_overlap_have_epochs_of_their_own},
    {"stop and start again", stop_and_start_again},
    {"a late session beside another", a_late_session_beside_another},
    {"loads are accesses and no stores", loads_are_accesses_and_no_stores},
    {"sessions have accesses of their own", sessions_have_accesses_of_their_own},
    {"anything, 1", anything},
    {"anything, 2", anything},
    {"anything, 3", anything},
    {"nothing is lost while the program stores", nothing_is_lost_while_the_program_stores},
};
const unsigned contract_scenario_count = sizeof contract_scenarios / sizeof contract_scenarios[0];

uint32_t contract_run(const struct world_kind *kind, char *first, uint32_t size)
{
    uint32_t objections = 0;
    static struct contract c; /* too big for a stack */
    for (unsigned i = 0; i < contract_scenario_count; i++) {
        contract_open(&c, kind, i + 1);
        contract_scenarios[i].run(&c);
        contract_close(&c);
        if (objections == 0)
            snprintf(first, size, "%s: %s: %s", kind->name, contract_scenarios[i].name, c.first);
        objections += c.objections;
    }
    if (kind->finish)
        kind->finish();
    return objections;
}
