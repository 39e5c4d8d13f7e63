/* The decision over every view that can be put together, and the named cases of the protocol. */
#include "controller/resolve.h"

#include <criterion/criterion.h>
#include <string.h>

typedef void (*view_fn)(const struct tw_resolve_view *v, const struct tw_verdict *verdict);

static struct tw_side_view side(unsigned n)
{
    return (struct tw_side_view){.known = (enum tw_known)(n % TW_KNOWN_COUNT),
                                 .answers = n / TW_KNOWN_COUNT & 1,
                                 .stuck = n / TW_KNOWN_COUNT >> 1 & 1,
                                 .holds_vm = n / TW_KNOWN_COUNT >> 2 & 1,
                                 .ended = n / TW_KNOWN_COUNT >> 3 & 1};
}

static void for_every_view(view_fn check)
{
    const unsigned sides = TW_KNOWN_COUNT * 16;
    for (unsigned s = 0; s < sides; s++)
        for (unsigned d = 0; d < sides; d++)
            for (unsigned k = 0; k < TW_DECIDED_COUNT * TW_FENCED_COUNT; k++) {
                struct tw_resolve_view v = {side(s), side(d),
                                            (enum tw_decided)(k % TW_DECIDED_COUNT),
                                            (enum tw_fenced)(k / TW_DECIDED_COUNT)};
                struct tw_verdict verdict = tw_resolve(&v);
                check(&v, &verdict);
            }
}

#define EXPECT(condition)                                                                          \
    cr_assert(condition, "%s at source %s/%d/%d/%d destination %s/%d/%d/%d decided %d fenced %d",  \
              tw_action_name(r->action), tw_known_name(v->source.known), v->source.answers,        \
              v->source.stuck, v->source.holds_vm, tw_known_name(v->destination.known),            \
              v->destination.answers, v->destination.stuck, v->destination.holds_vm, v->decided,   \
              v->fenced)

/* The source cannot run the VM: it said so durably, or it is fenced and does not contradict. */
static bool source_is_out(const struct tw_resolve_view *v)
{
    const struct tw_side_view *s = &v->source;
    if (s->known == TW_KNOWN_GIVEN_UP || s->known == TW_KNOWN_COMMITTED)
        return true;
    bool claims = s->answers && (s->known == TW_KNOWN_ACTIVE || s->holds_vm);
    return v->fenced & TW_FENCED_SOURCE && !claims;
}

static bool destination_is_out(const struct tw_resolve_view *v)
{
    const struct tw_side_view *d = &v->destination;
    if (d->answers && d->holds_vm)
        return false;
    if (d->known == TW_KNOWN_ABORTED || d->known == TW_KNOWN_UNKNOWN)
        return true;
    if (!(v->fenced & TW_FENCED_DESTINATION))
        return false;
    /* ... or is here again, with a process that has ended, when the source was to have it. */
    if (v->decided == TW_DECIDED_RECLAIM)
        return !d->answers || d->ended;
    return !d->answers && d->known != TW_KNOWN_COMMITTED && d->known != TW_KNOWN_PARTLY;
}

static void check_commit(const struct tw_resolve_view *v, const struct tw_verdict *r)
{
    if (r->action != TW_ACTION_COMMIT)
        return;
    EXPECT(v->destination.answers && v->destination.known == TW_KNOWN_PREPARED);
    EXPECT(source_is_out(v));
    EXPECT(v->decided == TW_DECIDED_NOTHING || v->decided == TW_DECIDED_COMMIT);
}

static void check_reclaim(const struct tw_resolve_view *v, const struct tw_verdict *r)
{
    if (r->action != TW_ACTION_RECLAIM)
        return;
    EXPECT(v->source.answers && v->source.known == TW_KNOWN_GIVEN_UP);
    EXPECT(destination_is_out(v));
    EXPECT(v->decided != TW_DECIDED_COMMIT || v->destination.known == TW_KNOWN_ABORTED ||
           (v->fenced & TW_FENCED_DESTINATION && !v->destination.answers));
}

static void check_abort(const struct tw_resolve_view *v, const struct tw_verdict *r)
{
    if (r->action != TW_ACTION_ABORT)
        return;
    EXPECT(v->destination.answers);
    EXPECT(v->destination.known == TW_KNOWN_ACTIVE || v->destination.known == TW_KNOWN_PREPARED);
    EXPECT(v->source.known != TW_KNOWN_COMMITTED);
    EXPECT(v->decided != TW_DECIDED_COMMIT || v->destination.known == TW_KNOWN_ABORTED);
}

static void check_finish_and_cancel(const struct tw_resolve_view *v, const struct tw_verdict *r)
{
    if (r->action == TW_ACTION_FINISH) {
        EXPECT(v->source.answers && v->source.known == TW_KNOWN_GIVEN_UP);
        EXPECT(v->destination.known == TW_KNOWN_COMMITTED ||
               (v->destination.answers && v->destination.holds_vm));
    }
    if (r->action == TW_ACTION_CANCEL)
        EXPECT(v->source.answers && v->source.known == TW_KNOWN_ACTIVE);
}

static void check_ends(const struct tw_resolve_view *v, const struct tw_verdict *r)
{
    const struct tw_side_view *s = &v->source, *d = &v->destination;
    bool destination_owns = d->known == TW_KNOWN_COMMITTED || (d->answers && d->holds_vm);
    if (r->action == TW_ACTION_COMPLETE)
        EXPECT(destination_owns || s->known == TW_KNOWN_COMMITTED);
    if (r->action == TW_ACTION_KEEP) {
        EXPECT(s->known == TW_KNOWN_ABORTED || (s->known == TW_KNOWN_UNKNOWN && s->holds_vm));
        EXPECT(!destination_owns || v->fenced & TW_FENCED_DESTINATION);
        EXPECT(!d->answers || (d->known != TW_KNOWN_ACTIVE && d->known != TW_KNOWN_PREPARED));
    }
    if (r->action == TW_ACTION_LOST) {
        EXPECT(!(s->answers && s->holds_vm &&
                 (s->known == TW_KNOWN_UNKNOWN || s->known == TW_KNOWN_ABORTED)));
        EXPECT(!destination_owns ||
               (v->fenced & TW_FENCED_DESTINATION && (!d->answers || d->ended)));
        EXPECT(s->known == TW_KNOWN_ABORTED || s->known == TW_KNOWN_COMMITTED ||
               (s->answers && s->known == TW_KNOWN_UNKNOWN) ||
               (v->fenced & TW_FENCED_SOURCE && !s->answers) ||
               (v->fenced & TW_FENCED_DESTINATION && !d->answers));
    }
}

static bool lost(const struct tw_resolve_view *v, enum tw_fenced side)
{
    bool answers = side == TW_FENCED_SOURCE ? v->source.answers : v->destination.answers;
    return v->fenced & side && !answers;
}

/* Words that only the other side can say are not looked at. */
static bool sensible(const struct tw_resolve_view *v)
{
    const struct tw_side_view *s = &v->source, *d = &v->destination;
    return s->known != TW_KNOWN_PREPARED && s->known != TW_KNOWN_PARTLY &&
           d->known != TW_KNOWN_GIVEN_UP && (!s->answers || s->known != TW_KNOWN_NOTHING) &&
           (!d->answers || d->known != TW_KNOWN_NOTHING);
}

static void check_lost_hosts(const struct tw_resolve_view *v, const struct tw_verdict *r)
{
    bool source = lost(v, TW_FENCED_SOURCE), destination = lost(v, TW_FENCED_DESTINATION);
    bool waits = r->action == TW_ACTION_DOUBT || r->action == TW_ACTION_WAIT;
    if (!sensible(v) || v->decided != TW_DECIDED_NOTHING)
        return;
    if (source && v->destination.answers)
        EXPECT(!waits || v->destination.known == TW_KNOWN_ACTIVE);
    if (source && destination)
        EXPECT(r->action == TW_ACTION_LOST || r->action == TW_ACTION_COMPLETE);
    /* A source that is at work still finds out by itself. */
    if (destination && v->source.answers)
        EXPECT(!waits || v->source.known == TW_KNOWN_ACTIVE ||
               v->destination.known == TW_KNOWN_COMMITTED);
}

/* The destination runs the VM on memory that only the source has. */
static void check_memory_follows(const struct tw_resolve_view *v, const struct tw_verdict *r)
{
    const struct tw_side_view *s = &v->source;
    if (v->destination.known == TW_KNOWN_PARTLY)
        EXPECT(r->action == TW_ACTION_WAIT || r->action == TW_ACTION_DOUBT ||
               r->action == TW_ACTION_ALARM || r->action == TW_ACTION_ABANDON ||
               (r->action == TW_ACTION_LOST && lost(v, TW_FENCED_DESTINATION)) ||
               (v->fenced & TW_FENCED_DESTINATION && v->decided == TW_DECIDED_RECLAIM));
    if (r->action != TW_ACTION_ABANDON)
        return;
    bool nothing = s->known == TW_KNOWN_UNKNOWN || s->known == TW_KNOWN_COMMITTED ||
                   s->known == TW_KNOWN_ABORTED || (s->stuck && s->ended);
    EXPECT(v->destination.known == TW_KNOWN_PARTLY);
    EXPECT(nothing || lost(v, TW_FENCED_SOURCE));
}

static void check_named(const struct tw_resolve_view *v, const struct tw_verdict *r)
{
    EXPECT(r->action < TW_ACTION_COUNT && tw_action_name(r->action)[0] != '?');
    EXPECT(strstr(r->reason, "source") && strstr(r->reason, "destination"));
}

Test(resolve, commit_needs_a_source_that_is_out)
{
    for_every_view(check_commit);
}
Test(resolve, reclaim_needs_a_destination_that_is_out)
{
    for_every_view(check_reclaim);
}
Test(resolve, abort_spares_the_only_copy)
{
    for_every_view(check_abort);
}
Test(resolve, finish_and_cancel_go_where_they_are_understood)
{
    for_every_view(check_finish_and_cancel);
}
Test(resolve, ends_name_a_true_owner)
{
    for_every_view(check_ends);
}
Test(resolve, a_source_whose_memory_is_missing_is_not_let_go)
{
    for_every_view(check_memory_follows);
}
Test(resolve, a_lost_host_is_not_waited_for)
{
    for_every_view(check_lost_hosts);
}
Test(resolve, every_verdict_has_a_reason)
{
    for_every_view(check_named);
}

struct one {
    const char *name;
    enum tw_known source;
    bool source_answers, source_stuck, source_holds;
    enum tw_known destination;
    bool destination_answers, destination_stuck;
    enum tw_decided decided;
    enum tw_fenced fenced;
    enum tw_action action;
};

#define YES(known)    known, true, false, false
#define STUCK(known)  known, true, true, false
#define HOLDS(known)  known, true, false, true
#define MUTE(known)   known, false, false, false
#define D_YES(known)  known, true, false
#define D_LOST(known) known, true, true
#define D_MUTE(known) known, false, false
#define FREE          TW_DECIDED_NOTHING, TW_FENCED_NONE

/* clang-format off */
static const struct one cases[] = {
    {"normal run", YES(TW_KNOWN_ACTIVE), D_YES(TW_KNOWN_ACTIVE), FREE, TW_ACTION_WAIT},
    {"just prepared", YES(TW_KNOWN_ACTIVE), D_YES(TW_KNOWN_PREPARED), FREE, TW_ACTION_WAIT},
    {"just given up", YES(TW_KNOWN_GIVEN_UP), D_YES(TW_KNOWN_PREPARED), FREE, TW_ACTION_WAIT},
    {"good end", YES(TW_KNOWN_COMMITTED), D_YES(TW_KNOWN_COMMITTED), FREE, TW_ACTION_COMPLETE},
    {"link cut after give-up", STUCK(TW_KNOWN_GIVEN_UP), D_LOST(TW_KNOWN_PREPARED), FREE, TW_ACTION_COMMIT},
    {"source died after give-up", MUTE(TW_KNOWN_GIVEN_UP), D_LOST(TW_KNOWN_PREPARED), FREE, TW_ACTION_COMMIT},
    {"confirmation lost", STUCK(TW_KNOWN_GIVEN_UP), D_LOST(TW_KNOWN_COMMITTED), FREE, TW_ACTION_FINISH},
    {"link cut in a round", STUCK(TW_KNOWN_ACTIVE), D_LOST(TW_KNOWN_ACTIVE), FREE, TW_ACTION_ABORT},
    {"source aborted", HOLDS(TW_KNOWN_ABORTED), D_YES(TW_KNOWN_PREPARED), FREE, TW_ACTION_ABORT},
    {"never started", HOLDS(TW_KNOWN_UNKNOWN), D_YES(TW_KNOWN_ACTIVE), FREE, TW_ACTION_ABORT},
    {"clean abort", HOLDS(TW_KNOWN_ABORTED), D_YES(TW_KNOWN_ABORTED), FREE, TW_ACTION_KEEP},
    {"destination host died early", HOLDS(TW_KNOWN_ABORTED), D_MUTE(TW_KNOWN_ACTIVE), FREE, TW_ACTION_KEEP},
    {"destination forgot a copy", STUCK(TW_KNOWN_GIVEN_UP), D_YES(TW_KNOWN_UNKNOWN), FREE, TW_ACTION_RECLAIM},
    {"destination is silent", STUCK(TW_KNOWN_GIVEN_UP), D_MUTE(TW_KNOWN_PREPARED), FREE, TW_ACTION_DOUBT},
    {"source is silent", MUTE(TW_KNOWN_ACTIVE), D_LOST(TW_KNOWN_PREPARED), FREE, TW_ACTION_DOUBT},
    {"both are silent", MUTE(TW_KNOWN_ACTIVE), D_MUTE(TW_KNOWN_ACTIVE), FREE, TW_ACTION_DOUBT},
    {"source QEMU died", YES(TW_KNOWN_ABORTED), D_YES(TW_KNOWN_ABORTED), FREE, TW_ACTION_LOST},
    {"operator: to the source", STUCK(TW_KNOWN_GIVEN_UP), D_MUTE(TW_KNOWN_PREPARED),
     TW_DECIDED_RECLAIM, TW_FENCED_DESTINATION, TW_ACTION_RECLAIM},
    {"operator: to the destination", MUTE(TW_KNOWN_ACTIVE), D_LOST(TW_KNOWN_PREPARED),
     TW_DECIDED_COMMIT, TW_FENCED_SOURCE, TW_ACTION_COMMIT},
    {"fence was not true", HOLDS(TW_KNOWN_ACTIVE), D_LOST(TW_KNOWN_PREPARED),
     TW_DECIDED_COMMIT, TW_FENCED_SOURCE, TW_ACTION_ALARM},
    {"no commit after reclaim", STUCK(TW_KNOWN_GIVEN_UP), D_LOST(TW_KNOWN_PREPARED),
     TW_DECIDED_RECLAIM, TW_FENCED_DESTINATION, TW_ACTION_ABORT},
    {"no reclaim after commit", STUCK(TW_KNOWN_GIVEN_UP), D_YES(TW_KNOWN_UNKNOWN),
     TW_DECIDED_COMMIT, TW_FENCED_NONE, TW_ACTION_DOUBT},
    {"memory follows", YES(TW_KNOWN_GIVEN_UP), D_YES(TW_KNOWN_PARTLY), FREE, TW_ACTION_WAIT},
    {"path lost, memory follows", STUCK(TW_KNOWN_GIVEN_UP), D_LOST(TW_KNOWN_PARTLY), FREE, TW_ACTION_WAIT},
    {"destination agent killed, memory follows", STUCK(TW_KNOWN_GIVEN_UP), D_MUTE(TW_KNOWN_PARTLY), FREE, TW_ACTION_WAIT},
    {"source agent killed, memory follows", MUTE(TW_KNOWN_GIVEN_UP), D_LOST(TW_KNOWN_PARTLY), FREE, TW_ACTION_DOUBT},
    {"source holds nothing, memory follows", YES(TW_KNOWN_UNKNOWN), D_LOST(TW_KNOWN_PARTLY), FREE, TW_ACTION_ABANDON},
    {"source host fenced, memory follows", MUTE(TW_KNOWN_GIVEN_UP), D_LOST(TW_KNOWN_PARTLY),
     TW_DECIDED_COMMIT, TW_FENCED_SOURCE, TW_ACTION_ABANDON},
    {"destination lost, memory followed", STUCK(TW_KNOWN_GIVEN_UP), D_MUTE(TW_KNOWN_PARTLY),
     TW_DECIDED_NOTHING, TW_FENCED_DESTINATION, TW_ACTION_LOST},
    {"destination lost, commit was told", STUCK(TW_KNOWN_GIVEN_UP), D_MUTE(TW_KNOWN_PREPARED),
     TW_DECIDED_COMMIT, TW_FENCED_DESTINATION, TW_ACTION_RECLAIM},
    {"destination lost, prepared", STUCK(TW_KNOWN_GIVEN_UP), D_MUTE(TW_KNOWN_PREPARED),
     TW_DECIDED_NOTHING, TW_FENCED_DESTINATION, TW_ACTION_RECLAIM},
    {"destination lost, owned", STUCK(TW_KNOWN_GIVEN_UP), D_MUTE(TW_KNOWN_COMMITTED),
     TW_DECIDED_NOTHING, TW_FENCED_DESTINATION, TW_ACTION_FINISH},
    {"destination lost and back, the source runs", HOLDS(TW_KNOWN_ABORTED), D_YES(TW_KNOWN_COMMITTED),
     TW_DECIDED_RECLAIM, TW_FENCED_DESTINATION, TW_ACTION_KEEP},
    {"destination lost and back, it may run", STUCK(TW_KNOWN_GIVEN_UP), D_YES(TW_KNOWN_COMMITTED),
     TW_DECIDED_RECLAIM, TW_FENCED_DESTINATION, TW_ACTION_ALARM},
    {"source lost, prepared", MUTE(TW_KNOWN_ACTIVE), D_LOST(TW_KNOWN_PREPARED),
     TW_DECIDED_NOTHING, TW_FENCED_SOURCE, TW_ACTION_COMMIT},
    {"source lost, had resumed", MUTE(TW_KNOWN_ABORTED), D_LOST(TW_KNOWN_PREPARED),
     TW_DECIDED_NOTHING, TW_FENCED_SOURCE, TW_ACTION_ABORT},
    {"source lost, half a copy", MUTE(TW_KNOWN_ACTIVE), D_LOST(TW_KNOWN_ACTIVE),
     TW_DECIDED_NOTHING, TW_FENCED_SOURCE, TW_ACTION_ABORT},
    {"source lost, no copy", MUTE(TW_KNOWN_ACTIVE), D_YES(TW_KNOWN_ABORTED),
     TW_DECIDED_ABORT, TW_FENCED_SOURCE, TW_ACTION_LOST},
    {"source lost, destination silent", MUTE(TW_KNOWN_ACTIVE), D_MUTE(TW_KNOWN_ACTIVE),
     TW_DECIDED_NOTHING, TW_FENCED_SOURCE, TW_ACTION_DOUBT},
    {"both lost", MUTE(TW_KNOWN_ACTIVE), D_MUTE(TW_KNOWN_PREPARED),
     TW_DECIDED_NOTHING, TW_FENCED_BOTH, TW_ACTION_LOST},
    {"two owners", HOLDS(TW_KNOWN_ABORTED), D_YES(TW_KNOWN_COMMITTED), FREE, TW_ACTION_ALARM},
};
/* clang-format on */

Test(resolve, named_cases)
{
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct one *c = &cases[i];
        struct tw_resolve_view v = {
            {c->source, c->source_answers, c->source_stuck, c->source_holds, false},
            {c->destination, c->destination_answers, c->destination_stuck, false, false},
            c->decided,
            c->fenced};
        struct tw_verdict r = tw_resolve(&v);
        cr_assert_eq(r.action, c->action, "%s: %s (%s)", c->name, tw_action_name(r.action),
                     r.reason);
    }
}

Test(resolve, what_becomes_of_the_vm_is_told_before)
{
    static const struct {
        enum tw_known source, destination;
        enum tw_fenced lost;
        enum tw_prospect prospect;
    } told[] = {
        {TW_KNOWN_GIVEN_UP, TW_KNOWN_PARTLY, TW_FENCED_DESTINATION, TW_PROSPECT_LOST},
        {TW_KNOWN_GIVEN_UP, TW_KNOWN_PREPARED, TW_FENCED_DESTINATION, TW_PROSPECT_SOURCE_RESUMES},
        {TW_KNOWN_GIVEN_UP, TW_KNOWN_COMMITTED, TW_FENCED_DESTINATION, TW_PROSPECT_DESTINATION},
        {TW_KNOWN_ACTIVE, TW_KNOWN_ACTIVE, TW_FENCED_DESTINATION, TW_PROSPECT_SOURCE},
        {TW_KNOWN_ACTIVE, TW_KNOWN_PREPARED, TW_FENCED_SOURCE, TW_PROSPECT_DESTINATION_RESUMES},
        {TW_KNOWN_ACTIVE, TW_KNOWN_ACTIVE, TW_FENCED_SOURCE, TW_PROSPECT_LOST},
        {TW_KNOWN_GIVEN_UP, TW_KNOWN_PARTLY, TW_FENCED_SOURCE, TW_PROSPECT_LOST},
        {TW_KNOWN_COMMITTED, TW_KNOWN_COMMITTED, TW_FENCED_SOURCE, TW_PROSPECT_DESTINATION},
    };
    for (size_t i = 0; i < sizeof told / sizeof *told; i++) {
        struct tw_resolve_view v = {.source = {told[i].source, true, true, false, false},
                                    .destination = {told[i].destination, true, true, false, false}};
        cr_expect_eq(tw_resolve_prospect(&v, told[i].lost), told[i].prospect, "%zu", i);
    }
    struct tw_resolve_view silent = {.source = {.known = TW_KNOWN_ACTIVE},
                                     .destination = {.known = TW_KNOWN_PREPARED}};
    cr_expect_eq(tw_resolve_prospect(&silent, TW_FENCED_SOURCE), TW_PROSPECT_OPEN);
}

Test(resolve, knowledge_outlives_silence_and_pruning)
{
    cr_assert_eq(tw_known_merge(true, TW_KNOWN_GIVEN_UP, TW_KNOWN_NOTHING, false),
                 TW_KNOWN_GIVEN_UP);
    cr_assert_eq(tw_known_merge(true, TW_KNOWN_GIVEN_UP, TW_KNOWN_UNKNOWN, false),
                 TW_KNOWN_GIVEN_UP);
    cr_assert_eq(tw_known_merge(true, TW_KNOWN_GIVEN_UP, TW_KNOWN_UNKNOWN, true), TW_KNOWN_UNKNOWN,
                 "a source that holds the VM is believed");
    cr_assert_eq(tw_known_merge(true, TW_KNOWN_GIVEN_UP, TW_KNOWN_ABORTED, true), TW_KNOWN_ABORTED);
    cr_assert_eq(tw_known_merge(true, TW_KNOWN_ACTIVE, TW_KNOWN_PREPARED, true), TW_KNOWN_ACTIVE);
    cr_assert_eq(tw_known_merge(false, TW_KNOWN_COMMITTED, TW_KNOWN_PARTLY, false),
                 TW_KNOWN_COMMITTED);
    cr_assert_eq(tw_known_merge(false, TW_KNOWN_PARTLY, TW_KNOWN_UNKNOWN, false), TW_KNOWN_PARTLY);
    cr_assert_eq(tw_known_merge(false, TW_KNOWN_PARTLY, TW_KNOWN_COMMITTED, false),
                 TW_KNOWN_COMMITTED);
    cr_assert_eq(tw_known_merge(false, TW_KNOWN_COMMITTED, TW_KNOWN_UNKNOWN, false),
                 TW_KNOWN_COMMITTED);
    cr_assert_eq(tw_known_merge(false, TW_KNOWN_ABORTED, TW_KNOWN_PREPARED, false),
                 TW_KNOWN_PREPARED, "a copy that exists after all bars a reclaim");
    cr_assert_eq(tw_known_merge(false, TW_KNOWN_PREPARED, TW_KNOWN_GIVEN_UP, false),
                 TW_KNOWN_PREPARED);
}
