/* A machine without a machine: memory, a writer that stores into it while it "runs", operations
 * that take virtual time, and failures on demand. Test only. */
#ifndef TOWLINE_SERVICES_MIGRATION_TESTS_FAKE_HOST_H
#define TOWLINE_SERVICES_MIGRATION_TESTS_FAKE_HOST_H

#include "base/clock.h"
#include "base/random.h"
#include "hosts/cache/cache.h"
#include "hosts/host.h"

#include <stdbool.h>

enum fake_link {
    FAKE_LINK_EVENTS, /* every store is a MemWr at once */
    FAKE_LINK_MARKS,  /* stores leave marks, sync delivers them */
    FAKE_LINK_CACHE,  /* stores go through a small cache hierarchy */
};

/* In which order the vCPUs of an incoming machine touch memory. */
enum fake_touches {
    FAKE_TOUCH_AT_RANDOM,
    FAKE_TOUCH_ASCENDING, /* each vCPU through a part of its own, page by page */
    FAKE_TOUCH_STRIDE,    /* one of them moves at all: every seventh page */
};

struct fake_host_config {
    const struct tw_clock *clock;
    uint64_t pages;
    uint64_t seed;
    bool incoming;
    enum fake_link link;
    bool sees_all_writers;
    uint32_t stores_per_ms;
    uint32_t unseen_percent;  /* of the stores, when not all writers are seen */
    uint32_t hot_pages;       /* that nine stores of ten go to; 0 = all pages alike */
    uint64_t unseen_until_ns; /* so long after its start every store is seen; 0 = never */
    enum fake_touches touches;
    bool by_line; /* incoming: memory is behind a cache, and each line waits by itself */
};

/* Who may wait for memory: vCPUs, and the machine's own thread while it loads. */
#define FAKE_VCPUS   3u
#define FAKE_WAITERS (FAKE_VCPUS + 1)

struct fake_waiter {
    bool waits, told;
    uint64_t address;
    uint64_t touches; /* done */
};

/* The hot and the cold stores come from a vCPU each while one of them is slowed. */
enum { FAKE_WRITER_HOT, FAKE_WRITER_COLD, FAKE_WRITERS };
struct fake_writer {
    struct tw_pace_bucket bucket;
    uint64_t at_ns;  /* its own time */
    uint64_t slowed; /* stores while somebody was slowed */
    uint64_t wait_ns;
};

/* How often an operation is to fail: at its begin, or when it is polled. */
struct fake_failures {
    unsigned begin, poll;
};

struct fake_host {
    struct tw_host host;
    struct fake_host_config config;
    struct tw_random random;
    struct tw_cache *cache;
    uint64_t *marks; /* line bitmap of each page */
    bool *data;      /* pages that are not holes */
    bool *reserved;  /* incoming: pages that reserve() was called for */
    bool alive, running;
    bool may_run;       /* checked at CONTINUE; set by whoever knows the rules */
    bool ran_too_early; /* CONTINUE was begun without may_run */
    uint64_t wrote_ns, opened_ns;
    uint64_t stores, unseen;

    uint64_t *paced; /* line bitmap of each page */
    struct tw_pace_rule pace_rule;
    uint64_t pace_until_ns; /* the rule ends by itself */
    struct fake_writer writers[FAKE_WRITERS];
    uint64_t pace_waits, pace_wait_max_ns, paced_ns;

    bool busy;
    enum tw_host_operation op;
    uint64_t op_ends_ns;
    const struct tw_host_state *to_load;
    struct fake_failures fail[TW_HOST_LOAD_STATE + 1];
    /* Incoming: memory that is not there yet. `original` is what it has to become. */
    const uint8_t *original;
    uint8_t *expected; /* what the guest must read, from its first moment on here */
    bool *opened;      /* pages that were declared ready */
    uint64_t *lines;   /* ... and lines, by page */
    bool missed;       /* the cache has asked for a line */
    bool guarded, saw_wrong;
    uint64_t guard_ends_ns;
    struct fake_waiter waiters[FAKE_WAITERS];
    unsigned fail_guard;  /* the next attempt fails */
    unsigned fail_rejoin; /* so many attempts fail */
    uint64_t waits, merged;
    bool *touched;
    uint64_t reached; /* pages that were touched for the first time while not all was there */
    uint64_t hits;    /* of the cache: these wait for nothing */

    unsigned fail_reserve; /* the n-th call from now fails; 0 = none */

    uint8_t *state; /* saved or loaded */
    size_t state_size;
    /* Called when CONTINUE begins. */
    void (*on_continue)(void *ctx);
    void *ctx;
};

void fake_host_open(struct fake_host *h, const struct fake_host_config *config);
void fake_host_close(struct fake_host *h);
/* Whether it slows anyone now. */
bool fake_host_is_slowed(const struct fake_host *h);
/* Lets the writer do what the time since the last call is good for. */
void fake_host_run(struct fake_host *h);
/* The guest begins to run here on a memory that has to become the original's. */
void fake_host_expect(struct fake_host *h);
/* Whether memory and what the guest expects are the same. */
bool fake_host_as_expected(const struct fake_host *h);
void fake_host_kill(struct fake_host *h);
/* The agent's process has ended: what it had under way ends unheard. */
void fake_host_forget_operation(struct fake_host *h);
/* Continues it as an agent does that reads in its journal that the machine is its own. */
void fake_host_continue(struct fake_host *h);

#endif
