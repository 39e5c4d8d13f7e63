/* Every piece is done once, by whichever thread. A program of its own, for the thread sanitizer. */
#include "hosts/process/crew.h"

#include <stdatomic.h>
#include <stdio.h>

#define PIECES 1000u
#define ROUNDS 200u

static atomic_uint done[PIECES];
static unsigned plain[PIECES]; /* what a piece wrote is seen after the run */

static void piece(void *ctx, unsigned number)
{
    atomic_fetch_add(&done[number], 1);
    plain[number] += *(unsigned *)ctx;
}

static unsigned wrong(struct tw_crew *crew)
{
    unsigned failed = 0;
    for (unsigned round = 1; round <= ROUNDS; round++) {
        unsigned one = 1;
        const unsigned count = round % 7 ? PIECES : round % 3;
        for (unsigned i = 0; i < PIECES; i++) {
            atomic_store(&done[i], 0);
            plain[i] = 0;
        }
        tw_crew_run(crew, piece, &one, count);
        for (unsigned i = 0; i < PIECES; i++)
            failed += atomic_load(&done[i]) != (i < count) || plain[i] != (i < count);
    }
    return failed;
}

int main(void)
{
    struct tw_crew *crew = tw_crew_open();
    if (!crew)
        return 2;
    const unsigned failed = wrong(crew) + wrong(NULL);
    const int idle = tw_crew_cpu_ns(crew) == 0;
    tw_crew_close(crew);
    tw_crew_close(NULL);
    printf("%u pieces were not done once, idle %d\n", failed, idle);
    return failed || idle;
}
