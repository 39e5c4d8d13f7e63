#include "bench/device/ceiling.h"

#include "bench/device/bench.h"

#include <stdlib.h>

#define SETS_1 64u
#define WAYS_1 8u
#define SETS_2 8192u
#define WAYS_2 16u

/* An entry is (line number + 1) << 1 | dirty; 0 is empty. */
struct ceiling {
    uint64_t one[SETS_1][WAYS_1];
    uint64_t two[SETS_2][WAYS_2];
    uint8_t next_one[SETS_1];
    uint8_t next_two[SETS_2];
    uint64_t write_backs;
};

struct ceiling *ceiling_open(void)
{
    return bench_alloc(sizeof(struct ceiling));
}

void ceiling_close(struct ceiling *c)
{
    free(c);
}

uint64_t ceiling_write_backs(const struct ceiling *c)
{
    return c->write_backs;
}

static inline unsigned find(const uint64_t *ways, unsigned count, uint64_t line)
{
    unsigned i = 0;
    while (i < count && ways[i] >> 1 != line)
        i++;
    return i;
}

void ceiling_run(struct ceiling *c, const uint64_t *events, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const uint64_t line = (events[i] >> 1) + 1;
        const uint64_t dirty = events[i] & 1;
        uint64_t *one = c->one[line % SETS_1];
        unsigned at = find(one, WAYS_1, line);
        if (at < WAYS_1) {
            one[at] |= dirty;
            continue;
        }
        uint64_t *two = c->two[line % SETS_2];
        unsigned below = find(two, WAYS_2, line);
        if (below == WAYS_2) {
            below = c->next_two[line % SETS_2]++ % WAYS_2;
            c->write_backs += two[below] & 1;
            two[below] = line << 1;
        }
        at = c->next_one[line % SETS_1]++ % WAYS_1;
        const uint64_t victim = one[at];
        one[at] = line << 1 | dirty;
        if (victim & 1) {
            uint64_t *home = c->two[(victim >> 1) % SETS_2];
            unsigned where = find(home, WAYS_2, victim >> 1);
            if (where < WAYS_2)
                home[where] |= 1;
            else
                c->write_backs++;
        }
    }
}
