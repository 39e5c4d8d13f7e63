/* The contract of all attachments: what a session is told, against what was stored.
 *
 * The oracle notes each store's lines, if the world says that its kind is TOLD. An attachment for
 * which equal values do not count (R7) owes only those lines that differ from the last pass. What a
 * collect tells must be exactly that: nothing missed, nothing invented, so that a blind spot that
 * is stated and not there is noticed, too.
 *
 * Where a world sees loads, every consumer has the accessed lines of its epoch as well. */
#ifndef TOWLINE_TESTS_ATTACHMENTS_CONTRACT_H
#define TOWLINE_TESTS_ATTACHMENTS_CONTRACT_H

#include "base/random.h"
#include "tests/attachments/world.h"

#define CONTRACT_CONSUMERS 3u

struct contract_consumer {
    char name[16];
    struct tw_tracker *tracker; /* NULL: does not track */
    struct tw_tracker *accessed;
    void *watch;
    uint32_t first, end; /* pages */
    uint64_t owed[CONTRACT_PAGES];
    bool whole[CONTRACT_PAGES]; /* may be told as a whole */
    uint64_t told[CONTRACT_PAGES];
    bool told_whole[CONTRACT_PAGES];
    uint64_t owed_accessed[CONTRACT_PAGES], told_accessed[CONTRACT_PAGES];
};

struct contract {
    struct world world;
    struct tw_random random;
    struct contract_consumer consumers[CONTRACT_CONSUMERS];
    uint64_t pending[CONTRACT_PAGES];  /* stored to since the last pass, and to be told */
    uint64_t accessed[CONTRACT_PAGES]; /* the same, or loaded */
    bool known[CONTRACT_PAGES];        /* the attachment has seen the page's content */
    uint8_t seen[CONTRACT_BYTES], now[CONTRACT_BYTES];
    uint32_t objections;
    char first[256]; /* objection */
};

void contract_open(struct contract *c, const struct world_kind *kind, uint64_t seed);
void contract_close(struct contract *c);

/* Orders a store; nothing where the kind is ABSENT. The size is cut at the region's end. */
void contract_store(struct contract *c, enum contract_kind kind, uint32_t offset, uint32_t size);

void contract_begin(struct contract *c, unsigned consumer, uint32_t first_page, uint32_t pages);
void contract_end(struct contract *c, unsigned consumer);

/* A pass, then one consumer's epoch. */
void contract_pass(struct contract *c);
void contract_take(struct contract *c, unsigned consumer); /* into `told`, unchecked */
void contract_collect(struct contract *c, unsigned consumer);

__attribute__((format(printf, 2, 3))) void contract_object(struct contract *c, const char *format,
                                                           ...);

/* ---- Scenarios ------------------------------------------------------------------------------- */

struct contract_scenario {
    const char *name;
    void (*run)(struct contract *c);
};
extern const struct contract_scenario contract_scenarios[];
extern const unsigned contract_scenario_count;

/* Runs all of them in worlds of this kind; returns the objections, of which the first is put out.
 */
uint32_t contract_run(const struct world_kind *kind, char *first, uint32_t size);

#endif
