/* A program made of functions, for the tests: stores lie in a list until a pass finds them. */
#ifndef TOWLINE_SERVICES_TRACKING_FAKE_ATTACHMENT_H
#define TOWLINE_SERVICES_TRACKING_FAKE_ATTACHMENT_H

#include "services/tracking/tracking.h"

#define FAKE_BASE   UINT64_C(0x7f0000000000) /* the program's first address; device address 0 */
#define FAKE_BYTES  (UINT64_C(64) << 20)
#define FAKE_STORES 4096u

struct fake_program {
    struct tw_device *device;
    uint64_t stores[FAKE_STORES]; /* addresses, not found yet */
    unsigned bytes;               /* that each store changes; 0: it stores what was there */
    bool
        stores_seen; /* each store is seen, contents compared on demand; before it is attached to */
    bool unsure;     /* and whether it changed anything cannot be told */
    unsigned count, seen;       /* of them, how many the pass under way will find */
    unsigned steps, steps_left; /* of a pass */
    unsigned passes, watches, closed;
    uint64_t due_ns;
    tw_told_fn told;
    void *told_arg;
    enum tw_hold hold;
    bool dead;
    bool outlives; /* what it stored is still found when it is dead; before it is attached to */
    enum tw_code pass_error; /* the next pass fails with it */
};

struct fake_world {
    uint64_t now_ns;
    struct tw_clock clock;
    struct fake_program program[2]; /* pids 1 and 2 */
    unsigned attached;
    struct tw_tracking *tracking;
};

void fake_open(struct fake_world *w);
void fake_close(struct fake_world *w);
void fake_store(struct fake_world *w, unsigned pid, uint64_t offset);
void fake_whole(struct fake_world *w, unsigned pid, uint64_t offset);
/* Steps until nothing is to be done at the present time; a bound keeps it finite. */
void fake_run(struct fake_world *w);

#endif
