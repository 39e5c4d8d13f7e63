/* Every order of events that two agents, their link, a controller and an operator can produce,
 * searched breadth-first: the controller's decisions never make two owners, and from every state
 * that can be reached the migration ends, once everybody answers again or was declared lost, with
 * exactly one owner (none only when a host was lost for good).
 *
 * The controller is the real tw_resolve and tw_known_merge; around them stands a small model of
 * what agents promise (agent.proto): who may move when, which commands they refuse. */
#include "controller/resolve.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINK_UP, LINK_DOWN };
enum { CMD_CANCEL, CMD_ABORT, CMD_COMMIT, CMD_FINISH, CMD_RECLAIM };

/* Small fields, so that a world packs into one word. */
struct world {
    uint64_t source : 3, destination : 3; /* enum tw_known */
    uint64_t link : 1, prepared_sent : 1, commit_sent : 1, running_sent : 1;
    uint64_t source_dead : 1, destination_dead : 1;   /* its host is off */
    uint64_t source_ended : 1, destination_ended : 1; /* ... and is back without the VM's process */
    /* The controller: durable, then volatile. */
    uint64_t stored_source : 3, stored_destination : 3, decided : 2, fenced : 2;
    uint64_t known_source : 3, known_destination : 3;
    uint64_t phase : 1; /* 1: the source was asked, the destination not yet */
    uint64_t source_answered : 1, source_stuck : 1;
    uint64_t commands : 5; /* under way, may arrive any time */
    uint64_t over : 2;     /* 1 complete, 2 keep, 3 lost */
};
_Static_assert(sizeof(struct world) == 8, "a world is one word");

#define SLOTS (UINT32_C(1) << 22)
static uint64_t *seen; /* open hashing; 0 = free, worlds are kept + 1 */
static uint64_t *queue;
static uint32_t head, tail;

static void fail(const char *what, struct world w)
{
    fprintf(stderr,
            "%s: source %s%s destination %s%s link %u decided %u fenced %u known %s/%s over %u\n",
            what, tw_known_name(w.source), w.source_dead ? " dead" : "",
            tw_known_name(w.destination), w.destination_dead ? " dead" : "", (unsigned)w.link,
            (unsigned)w.decided, (unsigned)w.fenced, tw_known_name(w.known_source),
            tw_known_name(w.known_destination), (unsigned)w.over);
    exit(1);
}

static int owners(struct world w)
{
    int source = !w.source_dead && !w.source_ended &&
                 (w.source == TW_KNOWN_ACTIVE || w.source == TW_KNOWN_ABORTED);
    int destination =
        !w.destination_dead && !w.destination_ended && w.destination == TW_KNOWN_COMMITTED;
    return source + destination;
}

static void visit(struct world w)
{
    if (owners(w) > 1)
        fail("two owners", w);
    uint64_t word;
    memcpy(&word, &w, sizeof word);
    uint32_t slot = (uint32_t)((word * UINT64_C(0x9e3779b97f4a7c15)) >> 42) & (SLOTS - 1);
    for (; seen[slot]; slot = (slot + 1) & (SLOTS - 1))
        if (seen[slot] == word + 1)
            return;
    if (tail == SLOTS - SLOTS / 4) {
        fprintf(stderr, "more worlds than expected\n");
        exit(1);
    }
    seen[slot] = word + 1;
    queue[tail++] = word;
}

static int source_answers(struct world w)
{
    return !w.source_dead;
}

/* ---- What agents do by themselves ---------------------------------------------------------- */

static struct world link_cut(struct world w)
{
    w.link = LINK_DOWN;
    w.prepared_sent = w.commit_sent = w.running_sent = 0;
    return w;
}

static void source_moves(struct world w)
{
    if (w.source_dead)
        return;
    struct world n = w;
    if (w.source == TW_KNOWN_ACTIVE && w.prepared_sent && w.link == LINK_UP) {
        n.source = TW_KNOWN_GIVEN_UP;
        n.prepared_sent = 0;
        n.commit_sent = 1;
        visit(n);
    }
    if (w.source == TW_KNOWN_ACTIVE) { /* its own reasons: disk full, peer lost, a timeout */
        n = link_cut(w);
        n.source = TW_KNOWN_ABORTED;
        visit(n);
    }
    if (w.source == TW_KNOWN_GIVEN_UP && w.running_sent) {
        n = w;
        n.source = TW_KNOWN_COMMITTED;
        n.running_sent = 0;
        visit(n);
    }
}

static void destination_moves(struct world w)
{
    if (w.destination_dead)
        return;
    struct world n = w;
    if (w.destination == TW_KNOWN_ACTIVE && w.link == LINK_UP) {
        n.destination = TW_KNOWN_PREPARED;
        n.prepared_sent = 1;
        visit(n);
    }
    if (w.destination == TW_KNOWN_ACTIVE) {
        n = link_cut(w);
        n.destination = TW_KNOWN_ABORTED;
        visit(n);
    }
    if (w.destination == TW_KNOWN_PREPARED && w.commit_sent) {
        n = w;
        n.destination = TW_KNOWN_COMMITTED;
        n.commit_sent = 0;
        n.running_sent = w.link == LINK_UP;
        visit(n);
    }
}

/* ---- Commands arrive, whenever they like; agents refuse what does not fit ------------------ */

static struct world arrive(struct world w, int command)
{
    w.commands = w.commands & ~(UINT64_C(1) << command) & 31u;
    int to_source = command == CMD_CANCEL || command == CMD_FINISH || command == CMD_RECLAIM;
    if (to_source ? w.source_dead : w.destination_dead)
        return w;
    switch (command) {
    case CMD_CANCEL:
        if (w.source == TW_KNOWN_ACTIVE)
            w.source = TW_KNOWN_ABORTED;
        break;
    case CMD_FINISH:
        if (w.source == TW_KNOWN_GIVEN_UP)
            w.source = TW_KNOWN_COMMITTED;
        break;
    case CMD_RECLAIM:
        if (w.source == TW_KNOWN_GIVEN_UP)
            w.source = TW_KNOWN_ABORTED;
        break;
    case CMD_ABORT:
        if (w.destination == TW_KNOWN_ACTIVE || w.destination == TW_KNOWN_PREPARED)
            w.destination = TW_KNOWN_ABORTED;
        break;
    case CMD_COMMIT:
        if (w.destination == TW_KNOWN_PREPARED)
            w.destination = TW_KNOWN_COMMITTED;
        break;
    default:
        break;
    }
    return w;
}

/* ---- The controller ------------------------------------------------------------------------ */

static struct world ask_source(struct world w, int answered)
{
    enum tw_known fresh = answered ? (enum tw_known)w.source : TW_KNOWN_NOTHING;
    int holds = answered && w.source == TW_KNOWN_ABORTED && !w.source_ended;
    w.known_source = tw_known_merge(true, (enum tw_known)w.known_source, fresh, holds);
    w.source_answered = answered != 0;
    w.source_stuck = w.link == LINK_DOWN;
    w.phase = 1;
    return w;
}

static struct world decide(struct world w, enum tw_decided decided, int command)
{
    if (decided != TW_DECIDED_NOTHING)
        w.decided = decided;
    w.stored_source = w.known_source;
    w.stored_destination = w.known_destination;
    w.commands = (w.commands | UINT64_C(1) << command) & 31u;
    return w;
}

static struct world act(struct world w, enum tw_action action)
{
    switch (action) {
    case TW_ACTION_CANCEL:
        return decide(w, TW_DECIDED_NOTHING, CMD_CANCEL);
    case TW_ACTION_ABORT:
        return decide(w, w.decided == TW_DECIDED_RECLAIM ? TW_DECIDED_RECLAIM : TW_DECIDED_ABORT,
                      CMD_ABORT);
    case TW_ACTION_COMMIT:
        return decide(w, TW_DECIDED_COMMIT, CMD_COMMIT);
    case TW_ACTION_FINISH:
        return decide(w, TW_DECIDED_NOTHING, CMD_FINISH);
    case TW_ACTION_RECLAIM:
        return decide(w, TW_DECIDED_RECLAIM, CMD_RECLAIM);
    case TW_ACTION_COMPLETE:
        w.over = 1;
        return w;
    case TW_ACTION_KEEP:
        w.over = 2;
        if (w.decided != TW_DECIDED_RECLAIM)
            w.decided = TW_DECIDED_ABORT;
        return w;
    case TW_ACTION_LOST:
        w.over = 3;
        return w;
    default:
        return w;
    }
}

static struct world ask_destination(struct world w, int answered)
{
    enum tw_known fresh = answered ? (enum tw_known)w.destination : TW_KNOWN_NOTHING;
    w.known_destination = tw_known_merge(false, (enum tw_known)w.known_destination, fresh, false);
    struct tw_resolve_view view = {
        .source = {(enum tw_known)w.known_source, w.source_answered, w.source_stuck,
                   w.source_answered && w.known_source == TW_KNOWN_ABORTED && !w.source_ended,
                   w.source_answered && w.source_ended},
        .destination = {(enum tw_known)w.known_destination, answered != 0, w.link == LINK_DOWN,
                        answered && w.known_destination == TW_KNOWN_COMMITTED &&
                            !w.destination_ended,
                        answered && w.destination_ended},
        .decided = (enum tw_decided)w.decided,
        .fenced = (enum tw_fenced)w.fenced,
    };
    enum tw_action action = tw_resolve(&view).action;
    if (action == TW_ACTION_RECLAIM && view.source.ended) /* as drive.c */
        action = TW_ACTION_LOST;
    w.phase = 0;
    w.source_answered = w.source_stuck = 0;
    return act(w, action);
}

static void controller_moves(struct world w)
{
    if (w.over)
        return;
    if (!w.phase) {
        visit(ask_source(w, 0));
        if (source_answers(w))
            visit(ask_source(w, 1));
    } else {
        visit(ask_destination(w, 0));
        if (!w.destination_dead)
            visit(ask_destination(w, 1));
    }
    struct world n = w; /* killed and restarted */
    n.known_source = w.stored_source;
    n.known_destination = w.stored_destination;
    n.phase = n.source_answered = n.source_stuck = 0;
    visit(n);
}

/* Switched on again: the disk is as it was, no process of the VM is left. */
static struct world source_back(struct world w)
{
    w.source_dead = 0;
    w.source_ended = 1;
    if (w.source == TW_KNOWN_ACTIVE)
        w.source = TW_KNOWN_ABORTED;
    return w;
}

static struct world destination_back(struct world w)
{
    w.destination_dead = 0;
    w.destination_ended = 1;
    if (w.destination == TW_KNOWN_ACTIVE || w.destination == TW_KNOWN_PREPARED)
        w.destination = TW_KNOWN_ABORTED;
    return w;
}

static struct world declare_lost(struct world w)
{
    if (w.source_dead)
        w.fenced |= TW_FENCED_SOURCE;
    if (w.destination_dead)
        w.fenced |= TW_FENCED_DESTINATION;
    return w;
}

/* An operator tells the truth: only a host that is lost for good is fenced. */
static void operator_moves(struct world w)
{
    if (w.over || w.phase)
        return;
    struct world n = w;
    if (w.source_dead && w.known_destination == TW_KNOWN_PREPARED &&
        w.decided != TW_DECIDED_RECLAIM) {
        n.fenced = TW_FENCED_SOURCE;
        n.decided = TW_DECIDED_COMMIT;
        visit(n);
    }
    if (w.destination_dead && w.known_destination != TW_KNOWN_COMMITTED) {
        n = w;
        n.fenced = TW_FENCED_DESTINATION;
        n.decided = TW_DECIDED_RECLAIM;
        visit(n);
    }
    visit(declare_lost(w));
}

/* ---- Whatever happened: once all that live answer, it ends well ---------------------------- */

static struct world settle_agents(struct world w)
{
    for (int c = 0; c < 5; c++)
        if (w.commands & UINT64_C(1) << c)
            w = arrive(w, c);
    w = link_cut(w);
    if (!w.source_dead && w.source == TW_KNOWN_ACTIVE)
        w.source = TW_KNOWN_ABORTED;
    return w;
}

static void check_ends(struct world start)
{
    struct world w = start;
    for (int i = 0; i < 12 && !w.over; i++) {
        w = settle_agents(w);
        if (!w.phase)
            w = ask_source(w, !w.source_dead);
        w = ask_destination(w, !w.destination_dead);
        w = declare_lost(w);
    }
    w = settle_agents(w);
    if (owners(w) > 1)
        fail("two owners in the end", start);
    if (!w.over)
        fail("does not end", start);
    bool all = !w.source_dead && !w.destination_dead && !w.source_ended && !w.destination_ended;
    if (w.over == 3 && all)
        fail("lost", start);
    if (w.over == 3 && owners(w))
        fail("lost, and somebody owns it", start);
    if (w.over != 3 && owners(w) != 1 && all)
        fail("no owner in the end", start);
}

static void expand(struct world w)
{
    source_moves(w);
    destination_moves(w);
    if (w.link == LINK_UP)
        visit(link_cut(w));
    for (int c = 0; c < 5; c++)
        if (w.commands & UINT64_C(1) << c)
            visit(arrive(w, c));
    struct world n = w;
    n.source_dead = 1;
    visit(link_cut(n));
    n = w;
    n.destination_dead = 1;
    visit(link_cut(n));
    if (w.source_dead)
        visit(source_back(w));
    if (w.destination_dead)
        visit(destination_back(w));
    controller_moves(w);
    operator_moves(w);
}

int main(void)
{
    seen = calloc(SLOTS, sizeof *seen);
    queue = calloc(SLOTS, sizeof *queue);
    if (!seen || !queue)
        return 1;
    struct world first;
    memset(&first, 0, sizeof first);
    first.source = first.destination = TW_KNOWN_ACTIVE;
    visit(first);
    uint32_t ends[4] = {0};
    while (head < tail) {
        struct world w;
        memcpy(&w, &queue[head++], sizeof w);
        ends[w.over]++;
        check_ends(w);
        expand(w);
    }
    printf("%u worlds: %u under way, %u completed, %u kept, %u lost\n", tail, ends[0], ends[1],
           ends[2], ends[3]);
    free(seen);
    free(queue);
    return ends[1] && ends[2] ? 0 : 1;
}
