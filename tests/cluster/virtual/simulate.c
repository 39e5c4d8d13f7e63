/* By hand and in the tests: plays seeds. */
#include "tests/cluster/virtual/mutations.h"
#include "tests/cluster/virtual/world.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    uint64_t first = 1, last = 1;
    bool trace = false;
    int method = -1, c;
    const char *mutation = NULL;
    while ((c = getopt(argc, argv, "s:tm:x:")) != -1) {
        if (c == 's') {
            char *end;
            first = last = strtoull(optarg, &end, 10);
            if (strncmp(end, "..", 2) == 0)
                last = strtoull(end + 2, NULL, 10);
        } else if (c == 't') {
            trace = true;
        } else if (c == 'm') {
            method = atoi(optarg);
        } else if (c == 'x') {
            mutation = optarg;
        }
    }
    unsigned bad = 0;
    for (uint64_t seed = first; seed <= last; seed++) {
        struct vt_scenario s;
        vt_scenario_of_seed(&s, seed, method);
        s.mutation = mutation;
        if (!vt_play(&s, trace)) {
            bad++;
            printf("seed %lu: at %.3f ms: %s\n", (unsigned long)seed,
                   (double)vt_world.problem_ns / 1e6, vt_world.problem);
        }
        fflush(stdout);
    }
    printf("%u bad\n", bad);
    return bad != 0;
}
