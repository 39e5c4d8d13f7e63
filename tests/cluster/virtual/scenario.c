/* From a seed to a cluster and what goes wrong in it. */
#include "tests/cluster/virtual/world.h"

#include "services/migration/migration.h"

#include <string.h>

const char *const vt_method_names[VT_METHODS] = {"precopy", "postcopy", "hybrid"};

#define FAULTS_UNTIL (4 * TW_SEC)

static uint64_t below(struct tw_random *r, uint64_t bound)
{
    return tw_random_below(r, bound);
}

/* A state of one of the machines, or a point of the controller. */
static void choose_point(struct tw_random *r, char point[40])
{
    static const char *const others[] = {
        "vm.recorded",         "vm.started",        "migration.decided",   "migration.told",
        "migration.preparing", "migration.copying", "migration.switching", "migration.resolving"};
    unsigned kind = (unsigned)below(r, 5);
    if (kind == 0) {
        snprintf(point, 40, "%s", others[below(r, sizeof others / sizeof *others)]);
        return;
    }
    const struct tw_machine_table *t = kind < 3 ? &tw_source_table : &tw_destination_table;
    snprintf(point, 40, "%s.%s", t->name, t->states[1 + below(r, t->count - 1)].name);
}

static unsigned amount_of(struct tw_random *r, enum vt_fault_kind kind)
{
    switch (kind) {
    case VT_KILL_AT_WRITE:
        return (unsigned)below(r, 16);
    case VT_LOSS:
        return 5 + (unsigned)below(r, 40);
    case VT_DELAY:
        return 10 + (unsigned)below(r, 1500);
    case VT_TWINS:
        return 20 + (unsigned)below(r, 60);
    case VT_DROP:
        return 1 + (unsigned)below(r, 4);
    case VT_DISK_SLOW:
        return 5 + (unsigned)below(r, 300);
    case VT_SET:
        return 64u << below(r, 6);
    case VT_SLOW:
        return below(r, 2) ? 5 * (unsigned)below(r, 19) : 0;
    default:
        return 0;
    }
}

static void choose_fault(struct tw_random *r, struct vt_fault *f)
{
    static const enum vt_fault_kind kinds[] = {
        VT_KILL,  VT_KILL, VT_KILL,      VT_KILL,      VT_KILL_AT_WRITE, VT_KILL_AT_WRITE,
        VT_CUT,   VT_CUT,  VT_CUT,       VT_ISOLATE,   VT_LOSS,          VT_DELAY,
        VT_TWINS, VT_DROP, VT_DISK_FULL, VT_DISK_SLOW, VT_CANCEL,        VT_SWITCH,
    };
    *f = (struct vt_fault){.kind = kinds[below(r, sizeof kinds / sizeof *kinds)]};
    if (below(r, 40) == 0)
        f->kind = VT_KILL_GUEST;
    f->node = (unsigned)below(r, VT_AGENTS + 1);
    f->other = (f->node + 1 + (unsigned)below(r, VT_AGENTS)) % (VT_AGENTS + 1);
    f->amount = amount_of(r, f->kind);
    f->lasts_ns = 10 * TW_MS + below(r, below(r, 3) ? 400 * TW_MS : 4 * TW_SEC);
    if (below(r, 2)) {
        f->at_ns = below(r, FAULTS_UNTIL);
        return;
    }
    choose_point(r, f->point);
    f->nth = 1 + (unsigned)below(r, 2);
    f->at_ns = below(r, 2) ? 0 : below(r, 20 * TW_MS);
    if (f->kind == VT_KILL && below(r, 2)) {
        f->node = VT_WHOEVER;
        f->at_ns = 0;
    }
}

/* What came later does not change what a seed stood for before: it is added to some. */
static void choose_more(struct vt_scenario *s, uint64_t seed)
{
    static const enum vt_fault_kind kinds[] = {VT_HOST_OFF, VT_HOST_OFF, VT_HOST_OFF, VT_STOP,
                                               VT_STOP,     VT_PAUSE,    VT_SET,      VT_RECONNECT};
    struct tw_random r = {seed * 2 + 0x9e3779b97f4a7c15};
    bool for_good = false;
    unsigned more = below(&r, 3) ? 0 : 1 + (unsigned)below(&r, 3);
    for (; more-- > 0; s->fault_count++) {
        struct vt_fault *f = &s->faults[s->fault_count];
        choose_fault(&r, f);
        f->kind = kinds[below(&r, sizeof kinds / sizeof *kinds)];
        f->amount = amount_of(&r, f->kind);
        if (f->node == VT_WHOEVER)
            f->node = (unsigned)below(&r, VT_AGENTS);
        if (f->kind != VT_HOST_OFF)
            continue;
        bool comes_back = for_good || f->node == VT_CONTROLLER || below(&r, 2);
        f->lasts_ns = comes_back ? TW_SEC + below(&r, 6 * TW_SEC) : 0;
        for_good |= f->lasts_ns == 0;
        s->deletes = s->deletes && !for_good; /* nobody deletes on a host that is not there */
    }
    if (below(&r, 4) == 0)
        s->recover_ns = 200 * TW_MS + below(&r, 2 * TW_SEC);
    if (below(&r, 6) == 0)
        s->plan = below(&r, 12) ? VT_PLAN_FRESH + (unsigned)below(&r, 2) : VT_PLAN_EXPIRED;
}

static void add_at(struct vt_scenario *s, struct vt_fault fault, const char *point)
{
    if (s->fault_count == VT_FAULTS_MAX)
        return;
    snprintf(fault.point, sizeof fault.point, "%s", point);
    fault.nth = 1;
    s->faults[s->fault_count++] = fault;
}

/* Rounds that do not shrink, so that a guest is slowed. */
static void choose_slow_down(struct tw_random *r, struct vt_scenario *s)
{
    s->slow_down = 5 + (unsigned)below(r, 86);
    s->downtime_ms = 1;
    s->data_pages += 64 + (unsigned)below(r, 64);
    s->stores_per_s += 20000;
    s->bandwidth = UINT64_C(256) << (10 + below(r, 3));
    if (below(r, 3) == 0)
        add_at(s,
               (struct vt_fault){
                   .kind = VT_SLOW, .at_ns = below(r, 2 * TW_SEC), .amount = amount_of(r, VT_SLOW)},
               "source.round");
}

static bool loses_host(const struct vt_scenario *s)
{
    for (unsigned i = 0; i < s->fault_count; i++)
        if (s->faults[i].kind == VT_HOST_OFF && s->faults[i].lasts_ns == 0)
            return true;
    return false;
}

/* A third host keeps what follows; some sources are lost meanwhile, some mirrors too. */
static void choose_mirror(struct tw_random *r, struct vt_scenario *s)
{
    static const char *const points[] = {"mirror.waiting", "mirror.filling", "mirror.holding",
                                         "mirror.serving", "mirror.released"};
    s->mirror = true;
    s->data_pages += (unsigned)below(r, 128);
    s->bandwidth = UINT64_C(256) << 10;
    s->mirror_after_ns = below(r, 2) ? 100 * TW_MS + below(r, 3 * TW_SEC) : 0;
    if (below(r, 2)) {
        bool for_good = !loses_host(s) && below(r, 3);
        s->deletes &= !for_good;
        s->vms = 1; /* or the other may not be there yet, and never will be */
        add_at(s,
               (struct vt_fault){.kind = VT_HOST_OFF,
                                 .at_ns = 1 + below(r, 30 * TW_MS),
                                 .lasts_ns = for_good ? 0 : TW_SEC + below(r, 6 * TW_SEC)},
               below(r, 4) ? "destination.fetching" : "source.given_up");
    }
    if (below(r, 4) == 0)
        add_at(s,
               (struct vt_fault){
                   .kind = VT_KILL, .node = VT_WHOEVER, .lasts_ns = 10 * TW_MS + below(r, TW_SEC)},
               points[below(r, sizeof points / sizeof *points)]);
    s->mirror_named = below(r, 2) && s->vms == 1;
}

static void choose_help(struct vt_scenario *s, uint64_t seed, int method)
{
    struct tw_random r = {seed * 2 + 0x2545f4914f6cdd1d};
    unsigned kind = (unsigned)below(&r, 8);
    if (kind < 2) {
        choose_slow_down(&r, s);
        s->method[0][0] = method >= 0 ? s->method[0][0] : VT_PRECOPY;
    } else if (kind < 5) {
        choose_mirror(&r, s);
        s->method[0][0] = method >= 0 ? s->method[0][0] : VT_POSTCOPY + (unsigned)below(&r, 2);
    }
}

void vt_scenario_of_seed(struct vt_scenario *s, uint64_t seed, int method)
{
    struct tw_random r = {seed * 2 + 1};
    *s = (struct vt_scenario){.seed = seed, .keep = ~UINT64_C(0)};
    s->vms = 1 + (below(&r, 3) == 0);
    s->moves = 1 + (unsigned)below(&r, VT_MOVES_MAX);
    s->data_pages = 4 + (unsigned)below(&r, 60);
    s->stores_per_s = 200 + below(&r, 20000);
    s->bandwidth = below(&r, 3) ? UINT64_C(256) << (10 + below(&r, 4)) : 0;
    s->all_writers_seen = below(&r, 2);
    s->hook = below(&r, 4) == 0;
    s->downtime_ms = below(&r, 3) ? 0 : 1;
    s->deletes = below(&r, 6) == 0;
    for (unsigned v = 0; v < VT_VMS_MAX; v++)
        for (unsigned m = 0; m < VT_MOVES_MAX; m++)
            s->method[v][m] =
                method >= 0 ? (enum vt_method)method : (enum vt_method)below(&r, VT_METHODS);
    s->fault_count = (unsigned)below(&r, 7);
    for (unsigned i = 0; i < s->fault_count; i++)
        choose_fault(&r, &s->faults[i]);
    choose_more(s, seed);
    choose_help(s, seed, method);
}
