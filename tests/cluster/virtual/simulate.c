/* simulate: plays clusters in virtual time, by their seeds. See usage below and CONTRIBUTING.md. */
#include "tests/cluster/virtual/mutations.h"
#include "tests/cluster/virtual/run.h"
#include "tests/cluster/virtual/states.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#define SEEDS_FOR_ALL 70u

static const char usage[] =
    "Usage: simulate [--seeds A..B | --seed N] [--method METHOD] [--trace] [...]\n"
    "       simulate --states | --mutations\n"
    "\n"
    "Plays whole clusters in virtual time, each a function of its seed: a controller, three\n"
    "agents, guests that are moved about, and what goes wrong. A seed that breaks a rule is made\n"
    "as short as can be and printed with the command that plays it again.\n"
    "\n"
    "  --seeds A..B     from A to B; default 1..100\n"
    "  --seed N         one seed\n"
    "  --method M       every migration is precopy, postcopy or hybrid; default: by the seed\n"
    "  --trace          prints what happens, with virtual times\n"
    "  --keep LIST      only these of the seed's faults: \"0,3\", \"none\"\n"
    "  --vms N, --moves N   fewer than the seed has\n"
    "  --break RULE     breaks a rule on purpose\n"
    "  --way NAME       a way to a state by its name (states.c) instead of a seed\n"
    "  --states         every state of both machines with each kind of trouble\n"
    "  --mutations      breaks one rule after the other: each must be noticed\n"
    "\n"
    "Exit status: 0 no rule was broken (--mutations: each was noticed), 1 otherwise, 2 wrong "
    "usage.\n";

struct options {
    uint64_t first, last;
    int method;
    bool trace, has_keep;
    uint64_t keep;
    unsigned vms, moves;
    const char *mutation, *way;
};

static int wrong(const char *what)
{
    fprintf(stderr, "simulate: %s\n\n%s", what, usage);
    return 2;
}

static void make(struct vt_scenario *s, uint64_t seed, const void *ctx)
{
    const struct options *o = ctx;
    vt_scenario_of_seed(s, seed, o->method);
    s->mutation = o->mutation;
    s->method_name = o->method >= 0 ? vt_method_names[o->method] : NULL;
    if (o->has_keep)
        s->keep = o->keep;
    if (o->vms && o->vms < s->vms)
        s->vms = o->vms;
    if (o->moves && o->moves < s->moves)
        s->moves = o->moves;
}

/* ---- Seeds ----------------------------------------------------------------------------------- */

struct told {
    unsigned left; /* that are shown: one defect is found by many seeds */
    unsigned paced, mirrored, served, saved;
};

static bool tell(const struct vt_scenario *s, const struct vt_result *r, void *to)
{
    struct vt_scenario shortest = *s;
    struct vt_result result = *r;
    struct told *told = to;
    told->paced += r->paced;
    told->mirrored += r->mirrored;
    told->served += r->served;
    told->saved += r->saved;
    if (r->good)
        return true;
    vt_shrink(&shortest, &result);
    vt_report(&shortest, &result, stdout);
    fflush(stdout);
    return --told->left > 0;
}

/* So many seeds come to everything that is drawn. */
static bool misses_something(const struct options *o, const struct told *t)
{
    bool missing = !t->paced || !t->mirrored || !t->served || !t->saved;
    return missing && o->last - o->first >= SEEDS_FOR_ALL && !o->mutation && !o->has_keep &&
           o->method < 0;
}

static int play_seeds(const struct options *o)
{
    struct told told = {.left = 10};
    unsigned bad = vt_run_all(o->first, o->last, make, o, true, tell, &told);
    printf("%llu..%llu: %u broke a rule; in %u a guest was slowed, in %u a mirror was complete, "
           "in %u it was asked, in %u it saved the VM\n",
           (unsigned long long)o->first, (unsigned long long)o->last, bad, told.paced,
           told.mirrored, told.served, told.saved);
    if (bad == 0 && misses_something(o, &told)) {
        printf("one of these never happened\n");
        return 1;
    }
    return bad != 0;
}

static int play_traced(const struct options *o)
{
    struct vt_scenario s;
    make(&s, o->first, o);
    if (o->way && !vt_way(o->way, &s))
        return wrong("there is no such way");
    s.mutation = o->mutation;
    struct vt_result r = vt_run_one(&s, true);
    if (!r.good)
        vt_report(&s, &r, stdout);
    return !r.good;
}

/* ---- Mutations ------------------------------------------------------------------------------- */

/* What notices has to play well as long as the rule is kept. */
static bool plays_well(const struct vt_scenario *with)
{
    struct vt_scenario without = *with;
    without.mutation = NULL;
    struct vt_result r = vt_run_one(&without, false);
    if (!r.good)
        printf("%-18s rule kept, seed %llu: %s\n", with->mutation, (unsigned long long)with->seed,
               r.problem);
    return r.good;
}

static bool first_is_enough(const struct vt_scenario *s, const struct vt_result *r, void *to)
{
    printf("%-18s noticed by seed %llu: %s\n", s->mutation, (unsigned long long)s->seed,
           r->problem);
    *(bool *)to = plays_well(s);
    return false;
}

static bool way_notices(const struct vt_mutation *m)
{
    struct vt_scenario s;
    if (!m->way || !vt_way(m->way, &s))
        return false;
    s.mutation = m->rule;
    struct vt_result r = vt_run_one(&s, false);
    if (!r.good)
        printf("%-18s noticed by way \"%s\": %s\n", m->rule, m->way, r.problem);
    return !r.good && plays_well(&s);
}

static bool is_noticed(const struct vt_mutation *m, const struct options *given)
{
    struct options o = *given;
    bool noticed = way_notices(m);
    o.mutation = m->rule;
    if (!noticed && m->seed)
        vt_run_all(m->seed, m->seed, make, &o, false, first_is_enough, &noticed);
    if (!noticed)
        vt_run_all(o.first, o.last, make, &o, false, first_is_enough, &noticed);
    return noticed;
}

static int play_mutations(const struct options *o)
{
    int missed = 0;
    for (const struct vt_mutation *m = vt_mutations; m->rule; m++) {
        bool noticed = is_noticed(m, o);
        if (!noticed)
            printf("%-18s NOT NOTICED\n", m->rule);
        missed += !noticed;
        fflush(stdout);
    }
    return missed != 0;
}

/* ---- Arguments ------------------------------------------------------------------------------- */

static bool parse_seeds(const char *text, uint64_t *first, uint64_t *last)
{
    char *end;
    *first = *last = strtoull(text, &end, 10);
    if (end != text && strncmp(end, "..", 2) == 0)
        *last = strtoull(end + 2, &end, 10);
    return end != text && *end == 0 && *first <= *last && *first > 0;
}

static bool parse_keep(const char *text, struct options *o)
{
    o->has_keep = true;
    o->keep = 0;
    if (strcmp(text, "none") == 0)
        return true;
    for (char *end; *text; text = *end ? end + 1 : end) {
        unsigned long i = strtoul(text, &end, 10);
        if (end == text || i >= VT_FAULTS_MAX || (*end && *end != ','))
            return false;
        o->keep |= UINT64_C(1) << i;
    }
    return true;
}

static bool parse_method(const char *text, int *method)
{
    for (int i = 0; i < VT_METHODS; i++)
        if (strcmp(text, vt_method_names[i]) == 0) {
            *method = i;
            return true;
        }
    return false;
}

int main(int argc, char **argv)
{
    enum { SEEDS = 1, SEED, METHOD, TRACE, KEEP, VMS, MOVES, BREAK, WAY, STATES, MUTATIONS, HELP };
    static const struct option options[] = {{"seeds", required_argument, NULL, SEEDS},
                                            {"seed", required_argument, NULL, SEED},
                                            {"method", required_argument, NULL, METHOD},
                                            {"trace", no_argument, NULL, TRACE},
                                            {"keep", required_argument, NULL, KEEP},
                                            {"vms", required_argument, NULL, VMS},
                                            {"moves", required_argument, NULL, MOVES},
                                            {"break", required_argument, NULL, BREAK},
                                            {"way", required_argument, NULL, WAY},
                                            {"states", no_argument, NULL, STATES},
                                            {"mutations", no_argument, NULL, MUTATIONS},
                                            {"help", no_argument, NULL, HELP},
                                            {0}};
    struct options o = {.first = 1, .last = 100, .method = -1};
    bool states = false, mutations = false, good = true;
    for (int c; good && (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == SEEDS || c == SEED)
            good = parse_seeds(optarg, &o.first, &o.last);
        else if (c == METHOD)
            good = parse_method(optarg, &o.method);
        else if (c == KEEP)
            good = parse_keep(optarg, &o);
        else if (c == VMS)
            o.vms = (unsigned)atoi(optarg);
        else if (c == MOVES)
            o.moves = (unsigned)atoi(optarg);
        else if (c == BREAK)
            o.mutation = optarg;
        else if (c == WAY)
            o.way = optarg;
        else if (c == HELP)
            return fputs(usage, stdout) < 0;
        o.trace |= c == TRACE;
        states |= c == STATES;
        mutations |= c == MUTATIONS;
        good = good && c != '?';
    }
    if (!good || optind != argc)
        return wrong("an argument cannot be understood");
    if (states)
        return vt_play_states(o.trace);
    if (mutations)
        return play_mutations(&o);
    return o.trace || o.way ? play_traced(&o) : play_seeds(&o);
}
