/* Who owns a VM whose migration was interrupted: the decision, as a pure function.
 *
 * Each side keeps its truth durably (HandOver in agent.proto). The controller collects both, with
 * what it remembers of a side that does not answer, and asks tw_resolve() what to do next. Two
 * rules are never broken, whatever comes in:
 *
 *   COMMIT at the destination only when the source has durably given up, or an operator has
 *   fenced it;
 *   RECLAIM at the source only when the destination is durably out, or an operator has fenced it;
 *
 * and while memory is still at the source nobody is told to FINISH. ABANDON, which loses the VM,
 * only when the source has answered that it holds nothing any more, or an operator has fenced it.
 *
 * With a host that an operator has declared lost (fenced) every migration ends: the copy that is
 * left is resumed unless the lost one is known to have run on behind it; then the VM is lost.
 *
 * COMMIT and RECLAIM never both: the first decision that is recorded excludes the other. */
#ifndef TOWLINE_CONTROLLER_RESOLVE_H
#define TOWLINE_CONTROLLER_RESOLVE_H

#include <stdbool.h>

/* What is known of a side. Numbers as HandOver in agent.proto. */
enum tw_known {
    TW_KNOWN_NOTHING = 0, /* it never answered */
    TW_KNOWN_UNKNOWN = 1, /* it answered that it holds nothing of the migration */
    TW_KNOWN_ACTIVE = 2,
    TW_KNOWN_GIVEN_UP = 3, /* source only */
    TW_KNOWN_PREPARED = 4, /* destination only */
    TW_KNOWN_COMMITTED = 5,
    TW_KNOWN_ABORTED = 6,
    TW_KNOWN_PARTLY = 7, /* destination only: owns it, and memory is still at the source */
    TW_KNOWN_COUNT,
};

struct tw_side_view {
    enum tw_known known; /* tw_known_merge of this answer and those before */
    bool answers;        /* it answered just now */
    bool stuck;          /* its peer is lost, or nothing has moved for too long */
    bool holds_vm;       /* it answered with a process of the VM that it owns */
    bool ended;          /* it answered that its process of the VM is gone */
};

/* The decision that was recorded, if any. */
enum tw_decided {
    TW_DECIDED_NOTHING,
    TW_DECIDED_COMMIT,
    TW_DECIDED_ABORT,
    TW_DECIDED_RECLAIM,
    TW_DECIDED_COUNT,
};

/* Which hosts an operator has declared to be off, combined. */
enum tw_fenced {
    TW_FENCED_NONE = 0,
    TW_FENCED_SOURCE = 1,
    TW_FENCED_DESTINATION = 2,
    TW_FENCED_BOTH = 3,
    TW_FENCED_COUNT,
    /* The third host of a migration with a mirror: beside the decision, which is between two. */
    TW_FENCED_MIRROR = TW_FENCED_COUNT,
};

struct tw_resolve_view {
    struct tw_side_view source, destination;
    enum tw_decided decided;
    enum tw_fenced fenced;
};

enum tw_action {
    TW_ACTION_WAIT,     /* the agents are at it: ask again */
    TW_ACTION_DOUBT,    /* a side has to answer first, or an operator to decide: ask again */
    TW_ACTION_ALARM,    /* the sides contradict each other: ask again, and tell people */
    TW_ACTION_CANCEL,   /* tell the source to end it */
    TW_ACTION_ABORT,    /* tell the destination to remove its copy */
    TW_ACTION_COMMIT,   /* tell the destination to own and resume the VM */
    TW_ACTION_FINISH,   /* tell the source that the destination owns the VM */
    TW_ACTION_RECLAIM,  /* tell the source to resume the VM */
    TW_ACTION_ABANDON,  /* tell the destination that its memory will never be whole */
    TW_ACTION_COMPLETE, /* over: the destination owns the VM */
    TW_ACTION_KEEP,     /* over: the source owns the VM */
    TW_ACTION_LOST,     /* over: no side has the VM */
    TW_ACTION_COUNT,
};

struct tw_verdict {
    enum tw_action action;
    char reason[160]; /* what is known of both sides, for people */
};

struct tw_verdict tw_resolve(const struct tw_resolve_view *view);

/* What would become of the VM if `lost` were declared lost, in addition to those that are. */
enum tw_prospect {
    TW_PROSPECT_OPEN,        /* the other host has to answer first */
    TW_PROSPECT_SOURCE,      /* the source owns it */
    TW_PROSPECT_DESTINATION, /* the destination owns it */
    /* The copy that stopped is resumed; whether the lost one ran since is not known. */
    TW_PROSPECT_SOURCE_RESUMES,
    TW_PROSPECT_DESTINATION_RESUMES,
    TW_PROSPECT_LOST, /* there is no copy that may run */
    /* Where there is a mirror (drive_mirror.c), by what it says. */
    TW_PROSPECT_MIRROR,     /* the destination goes on with what the mirror keeps */
    TW_PROSPECT_AWAITED,    /* the mirror may keep what is missing, and has to answer first */
    TW_PROSPECT_UNMIRRORED, /* the mirror is lost, and was not needed */
    TW_PROSPECT_COUNT,
};
enum tw_prospect tw_resolve_prospect(const struct tw_resolve_view *view, enum tw_fenced lost);

/* What is known of a side after it answered `fresh` (NOTHING = no answer). An answer that would
 * forget who owns the VM does not: an owner's claim outlives a pruned record. */
enum tw_known tw_known_merge(bool source, enum tw_known old, enum tw_known fresh, bool holds_vm);

const char *tw_action_name(enum tw_action action);
const char *tw_known_name(enum tw_known known);

#endif
