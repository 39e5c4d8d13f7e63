#include "controller/resolve.h"

#include <stdio.h>

/* The many views of a side fall into few classes; the decision is a table over them. */
enum source_class {
    S_SILENT,      /* does not answer, and nothing durable is known */
    S_GONE,        /* answers that it holds nothing, and has no process of the VM */
    S_OWNS,        /* has durably kept the VM */
    S_DIED,        /* has durably kept the VM, whose process ended */
    S_BUSY,        /* owns the VM and may give up any moment */
    S_STUCK,       /* owns the VM, its peer is lost */
    S_GAVE,        /* has durably given up and is telling the destination */
    S_GAVE_STUCK,  /* has durably given up, its peer is lost */
    S_GAVE_SILENT, /* has durably given up (or is fenced) and does not answer */
    S_FINISHED,    /* knows that the destination runs; has removed its copy */
    SOURCE_CLASSES,
};

enum destination_class {
    D_SILENT, /* does not answer, and nothing final is known */
    D_OUT,    /* will never run this copy */
    D_BUSY,   /* receives */
    D_STUCK,  /* received, its peer is lost */
    D_READY,  /* durably prepared; runs only when told */
    D_OWNS,   /* has durably taken over */
    D_PARTLY, /* ... and memory is still at the source */
    DESTINATION_CLASSES,
};

static const char *const source_text[SOURCE_CLASSES] = {
    [S_SILENT] = "the source does not answer",
    [S_GONE] = "the source holds nothing of the VM",
    [S_OWNS] = "the source owns the VM",
    [S_DIED] = "the source kept the VM, which ended there",
    [S_BUSY] = "the source is at work",
    [S_STUCK] = "the source owns the VM and has lost its peer",
    [S_GAVE] = "the source has given up the VM",
    [S_GAVE_STUCK] = "the source has given up the VM and lost its peer",
    [S_GAVE_SILENT] = "the source has given up the VM and does not answer",
    [S_FINISHED] = "the source has removed its copy",
};

static const char *const destination_text[DESTINATION_CLASSES] = {
    [D_SILENT] = "the destination does not answer",
    [D_OUT] = "the destination holds no copy",
    [D_BUSY] = "the destination is receiving",
    [D_STUCK] = "the destination has lost its peer",
    [D_READY] = "the destination is prepared and waits",
    [D_OWNS] = "the destination owns the VM",
    [D_PARTLY] = "the destination runs the VM and lacks memory of it",
};

static enum source_class silent_source(const struct tw_side_view *s, enum tw_fenced fenced)
{
    switch (s->known) {
    case TW_KNOWN_GIVEN_UP:
        return S_GAVE_SILENT;
    case TW_KNOWN_COMMITTED:
        return S_FINISHED;
    case TW_KNOWN_ABORTED:
        return fenced & TW_FENCED_SOURCE ? S_DIED : S_OWNS;
    default:
        /* An operator's word stands for the give-up of a host that cannot speak. */
        return fenced & TW_FENCED_SOURCE ? S_GAVE_SILENT : S_SILENT;
    }
}

static enum source_class source_class(const struct tw_side_view *s, enum tw_fenced fenced)
{
    if (!s->answers)
        return silent_source(s, fenced);
    switch (s->known) {
    case TW_KNOWN_UNKNOWN:
        return s->holds_vm ? S_OWNS : S_GONE;
    case TW_KNOWN_ACTIVE:
        return s->stuck ? S_STUCK : S_BUSY;
    case TW_KNOWN_GIVEN_UP:
        return s->stuck ? S_GAVE_STUCK : S_GAVE;
    case TW_KNOWN_COMMITTED:
        return S_FINISHED;
    case TW_KNOWN_ABORTED:
        return s->holds_vm ? S_OWNS : S_DIED;
    default:
        return S_SILENT;
    }
}

static enum destination_class destination_class(const struct tw_side_view *d, enum tw_fenced fenced)
{
    bool taking = d->known == TW_KNOWN_ACTIVE || d->known == TW_KNOWN_PREPARED;
    if (d->known == TW_KNOWN_PARTLY)
        return D_PARTLY;
    /* A host that runs the VM owns it, whatever its journal has forgotten. */
    if (d->answers && d->holds_vm && !taking)
        return D_OWNS;
    switch (d->known) {
    case TW_KNOWN_COMMITTED:
        return D_OWNS;
    case TW_KNOWN_ABORTED:
    case TW_KNOWN_UNKNOWN:
        return D_OUT;
    case TW_KNOWN_ACTIVE:
        if (d->answers)
            return d->stuck ? D_STUCK : D_BUSY;
        break;
    case TW_KNOWN_PREPARED:
        if (d->answers)
            return D_READY;
        break;
    default:
        break;
    }
    return fenced & TW_FENCED_DESTINATION && !d->answers ? D_OUT : D_SILENT;
}

#define WAIT     TW_ACTION_WAIT
#define DOUBT    TW_ACTION_DOUBT
#define ALARM    TW_ACTION_ALARM
#define CANCEL   TW_ACTION_CANCEL
#define ABORT    TW_ACTION_ABORT
#define COMMIT   TW_ACTION_COMMIT
#define FINISH   TW_ACTION_FINISH
#define RECLAIM  TW_ACTION_RECLAIM
#define ABANDON  TW_ACTION_ABANDON
#define COMPLETE TW_ACTION_COMPLETE
#define KEEP     TW_ACTION_KEEP
#define LOST     TW_ACTION_LOST

/* As long as no decision is recorded. The source is asked before the destination, so "the source
 * is at work, the destination owns" is only an answer that was overtaken: ask again. */
static const enum tw_action undecided[SOURCE_CLASSES][DESTINATION_CLASSES] = {
    /* clang-format off */
    /*                   SILENT    OUT      BUSY   STUCK  READY   OWNS      PARTLY */
    [S_SILENT]      = { DOUBT,    DOUBT,   WAIT,  ABORT, DOUBT,  COMPLETE, DOUBT   },
    [S_GONE]        = { DOUBT,    LOST,    ABORT, ABORT, DOUBT,  COMPLETE, ABANDON },
    [S_OWNS]        = { KEEP,     KEEP,    ABORT, ABORT, ABORT,  ALARM,    ALARM   },
    [S_DIED]        = { LOST,     LOST,    ABORT, ABORT, ABORT,  COMPLETE, ABANDON },
    [S_BUSY]        = { WAIT,     WAIT,    WAIT,  ABORT, WAIT,   WAIT,     WAIT    },
    [S_STUCK]       = { CANCEL,   CANCEL,  ABORT, ABORT, ABORT,  ALARM,    ALARM   },
    [S_GAVE]        = { WAIT,     RECLAIM, WAIT,  ABORT, WAIT,   WAIT,     WAIT    },
    [S_GAVE_STUCK]  = { DOUBT,    RECLAIM, ABORT, ABORT, COMMIT, FINISH,   WAIT    },
    [S_GAVE_SILENT] = { DOUBT,    DOUBT,   ABORT, ABORT, COMMIT, COMPLETE, DOUBT   },
    [S_FINISHED]    = { COMPLETE, LOST,    ALARM, ALARM, COMMIT, COMPLETE, ABANDON },
    /* clang-format on */
};

static bool source_lost(const struct tw_resolve_view *view)
{
    return view->fenced & TW_FENCED_SOURCE && !view->source.answers;
}

static bool destination_lost(const struct tw_resolve_view *view)
{
    return view->fenced & TW_FENCED_DESTINATION && !view->destination.answers;
}

/* COMMIT was recorded, so it may have been carried out: only a destination that durably aborted, or
 * is lost, frees the source again. */
static enum tw_action after_commit(enum source_class s, enum destination_class d,
                                   const struct tw_resolve_view *view)
{
    switch (d) {
    case D_READY:
        if (s == S_GAVE || s == S_GAVE_STUCK || s == S_GAVE_SILENT || s == S_FINISHED)
            return COMMIT;
        if (s == S_GONE || s == S_DIED)
            return view->fenced & TW_FENCED_SOURCE ? COMMIT : DOUBT;
        return s == S_SILENT ? DOUBT : ALARM;
    case D_OWNS:
        if (view->fenced & TW_FENCED_SOURCE)
            return s == S_GAVE_STUCK ? FINISH : COMPLETE;
        return undecided[s][d];
    case D_OUT:
        if (view->destination.known == TW_KNOWN_ABORTED || s == S_OWNS || destination_lost(view))
            return undecided[s][d];
        return DOUBT;
    case D_SILENT:
        return s == S_FINISHED ? COMPLETE : DOUBT;
    default:
        return ALARM;
    }
}

/* ABORT was recorded: the destination's copy must go, unless it is the only one. */
static enum tw_action after_abort(enum source_class s, enum destination_class d)
{
    if (d == D_READY && s == S_FINISHED)
        return ALARM;
    if (d == D_READY && (s == S_GAVE || s == S_GAVE_STUCK || s == S_GAVE_SILENT))
        return ABORT;
    return undecided[s][d];
}

/* The source was to take the VM back from a host that an operator had declared off. That host is
 * here again and had owned the VM: what it has is old by the operator's word, unless it runs. */
static enum tw_action against_the_fence(enum source_class s, enum destination_class d,
                                        const struct tw_resolve_view *view)
{
    const struct tw_side_view *t = &view->destination;
    bool idle = !t->answers || (t->ended && !t->holds_vm);
    if (!(view->fenced & TW_FENCED_DESTINATION))
        return ALARM;
    if (s == S_OWNS)
        return KEEP;
    if (source_lost(view) || s == S_GONE || s == S_DIED) {
        if (idle)
            return LOST;
        return d == D_PARTLY ? ABANDON : COMPLETE;
    }
    return (s == S_GAVE || s == S_GAVE_STUCK) && idle ? RECLAIM : ALARM;
}

/* The source was to take the VM back, and had let go of it before. */
static enum tw_action too_late(enum destination_class d, const struct tw_resolve_view *view)
{
    if (!(view->fenced & TW_FENCED_DESTINATION) || d == D_READY)
        return ALARM;
    return d == D_PARTLY && destination_lost(view) ? LOST : undecided[S_FINISHED][d];
}

/* RECLAIM was recorded, so the source may run: the destination never will. */
static enum tw_action after_reclaim(enum source_class s, enum destination_class d,
                                    const struct tw_resolve_view *view)
{
    if (s == S_FINISHED)
        return too_late(d, view);
    if (d == D_READY || d == D_BUSY || d == D_STUCK)
        return ABORT;
    if (d == D_OWNS || d == D_PARTLY)
        return against_the_fence(s, d, view);
    return undecided[s][d];
}

/* The destination ran the VM, so the source never will again; it only serves what is missing, as
 * long as it can. The hosts are at it by themselves. */
static enum tw_action while_memory_follows(enum source_class s, const struct tw_resolve_view *view)
{
    bool ended = s == S_GAVE_STUCK && view->source.ended;
    bool claims = s == S_OWNS || s == S_BUSY || s == S_STUCK;
    /* The only copy that went on is gone; the source's stands where the VM was before. */
    if (destination_lost(view))
        return claims ? ALARM : LOST;
    return ended || (s == S_GAVE_SILENT && source_lost(view)) ? ABANDON : undecided[s][D_PARTLY];
}

struct tw_verdict tw_resolve(const struct tw_resolve_view *view)
{
    enum source_class s = source_class(&view->source, view->fenced);
    enum destination_class d = destination_class(&view->destination, view->fenced);
    struct tw_verdict verdict = {.action = undecided[s][d]};
    if (d == D_PARTLY && view->decided != TW_DECIDED_RECLAIM)
        verdict.action = while_memory_follows(s, view);
    else if (view->decided == TW_DECIDED_COMMIT)
        verdict.action = after_commit(s, d, view);
    else if (view->decided == TW_DECIDED_ABORT)
        verdict.action = after_abort(s, d);
    else if (view->decided == TW_DECIDED_RECLAIM)
        verdict.action = after_reclaim(s, d, view);
    /* Without a source to wait for, a destination that is out is the end of it. */
    if (verdict.action == DOUBT && d == D_OUT && source_lost(view))
        verdict.action = LOST;
    snprintf(verdict.reason, sizeof verdict.reason, "%s; %s", source_text[s], destination_text[d]);
    return verdict;
}

enum tw_prospect tw_resolve_prospect(const struct tw_resolve_view *view, enum tw_fenced lost)
{
    struct tw_resolve_view then = *view;
    then.fenced |= lost;
    if (lost & TW_FENCED_SOURCE)
        then.source = (struct tw_side_view){.known = view->source.known};
    if (lost & TW_FENCED_DESTINATION)
        then.destination = (struct tw_side_view){.known = view->destination.known};
    switch (tw_resolve(&then).action) {
    case KEEP:
    case CANCEL:
        return TW_PROSPECT_SOURCE;
    case COMPLETE:
    case FINISH:
        return TW_PROSPECT_DESTINATION;
    case RECLAIM:
        return TW_PROSPECT_SOURCE_RESUMES;
    case COMMIT:
        return TW_PROSPECT_DESTINATION_RESUMES;
    case LOST:
    case ABANDON:
        return TW_PROSPECT_LOST;
    case ABORT: /* the last copy that could run is at the other side */
        return lost & TW_FENCED_SOURCE ? TW_PROSPECT_LOST : TW_PROSPECT_SOURCE;
    default:
        return TW_PROSPECT_OPEN;
    }
}

static enum tw_known merge_source(enum tw_known old, enum tw_known fresh, bool holds_vm)
{
    bool durable = old == TW_KNOWN_GIVEN_UP || old == TW_KNOWN_COMMITTED || old == TW_KNOWN_ABORTED;
    if (fresh == TW_KNOWN_PREPARED || fresh == TW_KNOWN_PARTLY)
        return old;
    if (fresh == TW_KNOWN_UNKNOWN && durable && !holds_vm)
        return old;
    return fresh;
}

static enum tw_known merge_destination(enum tw_known old, enum tw_known fresh)
{
    if (fresh == TW_KNOWN_GIVEN_UP)
        return old;
    if (old == TW_KNOWN_COMMITTED && (fresh == TW_KNOWN_UNKNOWN || fresh == TW_KNOWN_ABORTED))
        return old;
    if (old == TW_KNOWN_COMMITTED && fresh == TW_KNOWN_PARTLY)
        return old;
    if (old == TW_KNOWN_PARTLY && fresh != TW_KNOWN_COMMITTED)
        return old;
    if (old == TW_KNOWN_ABORTED && fresh == TW_KNOWN_UNKNOWN)
        return old;
    return fresh;
}

enum tw_known tw_known_merge(bool source, enum tw_known old, enum tw_known fresh, bool holds_vm)
{
    if (fresh == TW_KNOWN_NOTHING)
        return old;
    return source ? merge_source(old, fresh, holds_vm) : merge_destination(old, fresh);
}

const char *tw_action_name(enum tw_action action)
{
    static const char *const names[TW_ACTION_COUNT] = {
        "wait",   "doubt",   "alarm",   "cancel",   "abort", "commit",
        "finish", "reclaim", "abandon", "complete", "keep",  "lost",
    };
    return (unsigned)action < TW_ACTION_COUNT ? names[action] : "?";
}

const char *tw_known_name(enum tw_known known)
{
    static const char *const names[TW_KNOWN_COUNT] = {
        "nothing",  "unknown",   "active",  "given_up",
        "prepared", "committed", "aborted", "committed_partly",
    };
    return (unsigned)known < TW_KNOWN_COUNT ? names[known] : "?";
}
