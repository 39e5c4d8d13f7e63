/* A real side in virtual time against a peer of which the test makes every word. One at a time: it
 * is in `d`. */
#ifndef TOWLINE_MIGRATION_TESTS_DUEL_H
#define TOWLINE_MIGRATION_TESTS_DUEL_H

#include "base/random.h"
#include "fabric/sim.h"
#include "services/migration/control.h"
#include "services/migration/migration.h"
#include "services/migration/tests/fake_host.h"

#define PAGES 64u

struct duel {
    struct tw_sim *sim;
    const struct tw_clock *clock;
    struct tw_fabric *fabric[2]; /* 0 = the real side, 1 = the peer */
    struct fake_host host;
    struct tw_source *source;
    struct tw_destination *destination;
    struct tw_conn *peer; /* the peer's end */
    bool peer_up, peer_down;
    struct tw_error peer_why;
    enum tw_hand_over durable;
    struct tw_migration_params params;
    tw_migration_dial dial_mirror; /* of the real side; NULL = it has none */
    uint32_t heard[16];            /* control messages that the peer got, by kind */
};

extern struct duel d;

void duel_open(uint64_t seed, bool incoming);
void duel_close(void);
struct tw_migration_env env(void); /* of the real side */
/* Everybody once, then this much time. Fails when the VM has run too early. */
void turn(uint64_t ns);
void turns(unsigned n, uint64_t ns);

struct tw_hello hello_of(const struct tw_migration_params *params);
/* A destination waits, and the peer connects with this hello. */
void meet_destination(const struct tw_hello *hello);

/* The peer says it, and a moment passes. */
void say(enum tw_control_kind kind, const union tw_control *m);
void say_begin_with(enum tw_migration_method method);
void say_begin(void);
void say_line(uint64_t page);
/* A message that is well-formed but may come at any time, or noise. */
void say_something(struct tw_random *r);

#endif
