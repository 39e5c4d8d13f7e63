#include "tests/cluster/virtual/states.h"

#include "services/migration/destination.h"
#include "tests/cluster/virtual/run.h"

#include <string.h>

#define SOURCE      0u /* one VM goes from the first host to the second */
#define DESTINATION 1u

static const struct tw_machine_table *const tables[] = {&tw_source_table, &tw_destination_table};

/* ---- Ways to come to a state ----------------------------------------------------------------- */

static struct vt_scenario plain(enum vt_method method)
{
    struct vt_scenario s = {.seed = 7,
                            .vms = 1,
                            .moves = 1,
                            .data_pages = 32,
                            .stores_per_s = 4000,
                            .hook = true,
                            .keep = ~UINT64_C(0)};
    s.method[0][0] = method;
    return s;
}

static void add(struct vt_scenario *s, struct vt_fault fault)
{
    s->faults[s->fault_count++] = fault;
}

static struct vt_scenario precopy(void)
{
    return plain(VT_PRECOPY);
}

static struct vt_scenario rounds(void)
{
    struct vt_scenario s = plain(VT_PRECOPY);
    s.data_pages = 200;
    s.stores_per_s = 40000;
    s.downtime_ms = 1;
    s.bandwidth = 2 << 20;
    return s;
}

/* Slow enough that lines are still to follow when trouble comes. */
static struct vt_scenario postcopy(void)
{
    struct vt_scenario s = plain(VT_POSTCOPY);
    s.bandwidth = 256 << 10;
    return s;
}

static struct vt_scenario mirrored(void)
{
    struct vt_scenario s = postcopy();
    s.mirror = true;
    s.data_pages = 200;
    return s;
}

static struct vt_scenario hybrid(void)
{
    struct vt_scenario s = plain(VT_HYBRID);
    s.stores_per_s = 20000;
    s.bandwidth = 256 << 10;
    return s;
}

static struct vt_scenario refused(void)
{
    struct vt_scenario s = precopy();
    add(&s, (struct vt_fault){.kind = VT_DISK_FULL,
                              .point = "destination.loading_state",
                              .nth = 1,
                              .node = DESTINATION,
                              .lasts_ns = TW_SEC});
    return s;
}

static struct vt_scenario cancelled(void)
{
    struct vt_scenario s = rounds();
    s.bandwidth = 64 << 10;
    add(&s, (struct vt_fault){
                .kind = VT_CANCEL, .point = "source.full_copy", .nth = 1, .node = SOURCE});
    return s;
}

static struct vt_scenario guest_dies(const char *point, unsigned node)
{
    struct vt_scenario s = precopy();
    struct vt_fault f = {.kind = VT_KILL_GUEST, .nth = 1, .node = node};
    strncpy(f.point, point, sizeof f.point - 1);
    add(&s, f);
    return s;
}

static struct vt_scenario guest_dies_at_source(void)
{
    return guest_dies("source.waiting", SOURCE);
}

static struct vt_scenario guest_dies_at_destination(void)
{
    return guest_dies("destination.resuming", DESTINATION);
}

/* While its memory follows. */
static struct vt_scenario postcopy_with(struct vt_fault fault)
{
    struct vt_scenario s = postcopy();
    strcpy(fault.point, "destination.fetching");
    fault.nth = 1;
    fault.at_ns = 5 * TW_MS;
    add(&s, fault);
    return s;
}

static struct vt_scenario path_is_cut(void)
{
    return postcopy_with((struct vt_fault){
        .kind = VT_CUT, .node = SOURCE, .other = DESTINATION, .lasts_ns = 400 * TW_MS});
}

static struct vt_scenario destination_starts_again(void)
{
    return postcopy_with(
        (struct vt_fault){.kind = VT_KILL, .node = DESTINATION, .lasts_ns = 300 * TW_MS});
}

/* Silence is noticed after seconds, and the one attempt that there is time for takes some more.
 * The state is left by an operator's order, when there is a path again. */
static struct vt_scenario path_stays_cut(void)
{
    struct vt_scenario s =
        postcopy_with((struct vt_fault){.kind = VT_CUT, .node = SOURCE, .other = DESTINATION});
    s.recover_ns = 200 * TW_MS;
    s.wrong_ns = 20 * TW_SEC;
    return s;
}

/* Goes on when an operator says so, long before a pause would end by itself. */
static struct vt_scenario paused_while_it_follows(void)
{
    struct vt_scenario s =
        postcopy_with((struct vt_fault){.kind = VT_PAUSE, .node = SOURCE, .lasts_ns = 500 * TW_MS});
    s.data_pages = 400;
    return s;
}

static const struct {
    const char *name;
    struct vt_scenario (*make)(void);
} ways[] = {
    {"precopy", precopy},
    {"rounds", rounds},
    {"postcopy", postcopy},
    {"hybrid", hybrid},
    {"mirrored", mirrored},
    {"refused", refused},
    {"cancelled", cancelled},
    {"guest dies at the source", guest_dies_at_source},
    {"guest dies at the destination", guest_dies_at_destination},
    {"path is cut while memory follows", path_is_cut},
    {"path stays cut until nobody tries any more", path_stays_cut},
    {"paused while memory follows", paused_while_it_follows},
    {"destination starts again while memory follows", destination_starts_again},
};
#define WAYS (sizeof ways / sizeof *ways)

bool vt_way(const char *name, struct vt_scenario *scenario)
{
    for (unsigned w = 0; w < WAYS; w++) {
        if (strcmp(ways[w].name, name) != 0)
            continue;
        *scenario = ways[w].make();
        return true;
    }
    return false;
}

/* ---- Trouble --------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    struct vt_fault fault;
    bool guest; /* ... and while it is down, the VM's process on that host */
} troubles[] = {
    {.name = "source agent killed",
     .fault = {.kind = VT_KILL, .node = SOURCE, .lasts_ns = 300 * TW_MS}},
    {.name = "destination agent killed",
     .fault = {.kind = VT_KILL, .node = DESTINATION, .lasts_ns = 300 * TW_MS}},
    {.name = "controller killed",
     .fault = {.kind = VT_KILL, .node = VT_CONTROLLER, .lasts_ns = 300 * TW_MS}},
    {.name = "network cut", /* until everything works again */
     .fault = {.kind = VT_CUT, .node = SOURCE, .other = DESTINATION}},
    {.name = "network cut and restored",
     .fault = {.kind = VT_CUT,
               .node = SOURCE,
               .other = DESTINATION,
               .lasts_ns = 60 * TW_MS,
               .amount = 1}},
    {.name = "source agent and VM killed",
     .fault = {.kind = VT_KILL, .node = SOURCE, .lasts_ns = 300 * TW_MS},
     .guest = true},
    {.name = "destination agent and VM killed",
     .fault = {.kind = VT_KILL, .node = DESTINATION, .lasts_ns = 300 * TW_MS},
     .guest = true},
    {.name = "source agent stopped", .fault = {.kind = VT_STOP, .node = SOURCE, .lasts_ns = TW_MS}},
    {.name = "destination agent stopped",
     .fault = {.kind = VT_STOP, .node = DESTINATION, .lasts_ns = TW_MS}},
    {.name = "source host lost", .fault = {.kind = VT_HOST_OFF, .node = SOURCE}},
    {.name = "destination host lost", .fault = {.kind = VT_HOST_OFF, .node = DESTINATION}},
};
#define TROUBLES (sizeof troubles / sizeof *troubles)

static struct vt_scenario scenario_at(unsigned way, unsigned table, unsigned state,
                                      unsigned trouble)
{
    struct vt_scenario s = ways[way].make();
    struct vt_fault f = troubles[trouble].fault;
    snprintf(f.point, sizeof f.point, "%s.%s", tables[table]->name,
             tables[table]->states[state].name);
    f.nth = 1;
    add(&s, f);
    if (troubles[trouble].guest) {
        f.kind = VT_KILL_GUEST;
        f.at_ns = 10 * TW_MS;
        f.lasts_ns = 0;
        add(&s, f);
    }
    return s;
}

/* The first way that comes to each state; WAYS: none does. */
static int find_ways(unsigned found[2][64])
{
    for (unsigned t = 0; t < 2; t++)
        for (unsigned i = 0; i < 64; i++)
            found[t][i] = WAYS;
    int bad = 0;
    for (unsigned w = 0; w < WAYS; w++) {
        struct vt_scenario s = ways[w].make();
        struct vt_result r = vt_run_one(&s, false);
        if (!r.good) {
            printf("way \"%s\": %s\n", ways[w].name, r.problem);
            bad++;
        }
        if (r.reached[DESTINATION][TW_DESTINATION_PAUSED] && !r.reconnects) {
            printf("way \"%s\": destination.paused is left without an operator\n", ways[w].name);
            bad++;
        }
        for (unsigned t = 0; t < 2; t++)
            for (unsigned i = 0; i < tables[t]->count; i++)
                if (r.reached[t][i] && found[t][i] == WAYS)
                    found[t][i] = w;
    }
    return bad;
}

static bool play_one(unsigned way, unsigned table, unsigned state, unsigned trouble, bool verbose)
{
    struct vt_scenario s = scenario_at(way, table, state, trouble);
    struct vt_result r = vt_run_one(&s, false);
    bool good = r.good && r.struck;
    if (!good || verbose)
        printf("%s.%s (%s), %s: %s\n", tables[table]->name, tables[table]->states[state].name,
               ways[way].name, troubles[trouble].name,
               !r.good     ? r.problem
               : !r.struck ? "the state was not reached"
                           : "good");
    return good;
}

int vt_play_states(bool verbose)
{
    unsigned found[2][64], played = 0;
    int bad = find_ways(found);
    for (unsigned t = 0; t < 2; t++) {
        for (unsigned i = 1; i < tables[t]->count; i++) { /* state 0 is entered silently */
            if (found[t][i] == WAYS) {
                printf("%s.%s: no scenario comes to this state\n", tables[t]->name,
                       tables[t]->states[i].name);
                bad++;
                continue;
            }
            for (unsigned k = 0; k < TROUBLES; k++, played++)
                bad += !play_one(found[t][i], t, i, k, verbose);
        }
    }
    printf("%u scenarios, %d bad\n", played, bad);
    return bad != 0;
}
