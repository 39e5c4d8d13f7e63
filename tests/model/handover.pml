/* The hand-over of a VM, pre-copy and post-copy: ownership epochs, two-phase commit, recovery.
 *
 * Each agent has a durable word (HandOver in agent.proto) and, while it lives, a state of its
 * machine; here those that matter for ownership, under the names of the tables (source.c,
 * destination.c): what lies between them is one step. Messages go by channels whose connection may
 * be cut at any moment, once, with all that is under way lost. Each of the two agents and the
 * controller may crash once, at any moment, and starts again from what is durable. A destination
 * whose memory is still on its way connects again, whoever was lost. A controller
 * decides as controller/resolve.c does, of answers that may be old.
 *
 *   spin -DPOST=0 -search -safety -ltl never_two handover.pml      pre-copy
 *   spin -DPOST=1 -search -a -f -DNFAIR=3 -ltl ends handover.pml   post-copy
 *   spin -DPOST=1 -DLOST=1 ...                                     ... and the destination's host is
 *                                  lost for good, at any moment; an operator says so at some time
 *
 * MIRROR=1: a third agent holds what follows the VM before it is given up, and the source's host may
 * be lost for good, once, after that. (Before, it takes its VM along, as without any migration.)
 *
 *   spin -DPOST=1 -DMIRROR=1 -search -a -f -DNFAIR=3 -ltl ends handover.pml
 *
 * Checked: never two owners (an invariant of each step), the destination never before the source
 * has durably given up, and in the end exactly one owner has the VM, with all of its memory.
 *
 * source, folded into verifying: new connecting announcing full_copy waiting round precompare
 * source, folded into verifying: stopping final_pass compare sending_map saving_state sending_state
 * source, folded into verifying: hook giving_up
 * source, folded into aborted: lost
 * destination, folded into receiving: new waiting guarding loading_state verifying preparing
 * destination, folded into resuming: committing
 * destination, folded into aborted: aborting lost
 *
 * BREAK breaks one rule each, for the proof that the checks bite: 1 = a prepared destination whose
 * connection is cut takes over by itself, 2 = a source that has given up resumes when its peer is
 * lost, 3 = nobody tells a source that it may reclaim, 4 = a source is told to finish while memory
 * is still on its way, 5 = nobody decides for a host that is lost, 6 = it is decided before an
 * operator has said that the host is lost, 7 = a source does not wait for its mirror. */
#ifndef POST
#define POST 0
#endif
#ifndef MIRROR
#define MIRROR 0
#endif
#ifndef LOST
#define LOST 0
#endif
#ifndef BREAK
#define BREAK 0
#endif

/* Durable words. */
mtype = {ACTIVE, GIVEN_UP, PREPARED, COMMITTED, COMMITTED_PARTLY, ABORTED};

/* States: the tables' names; handover_test compares them. "down" = its agent does not run. */
mtype = {source_verifying, source_mirroring, source_given_up, source_serving, source_path_lost, source_completed, source_resuming,
         source_aborted, source_down};
mtype = {destination_receiving, destination_prepared, destination_rejoining, destination_resuming,
         destination_fetching, destination_path_lost, destination_paused, destination_committed,
         destination_aborted, destination_down};

/* Messages. */
mtype = {prepared, commit, running, whole};

mtype sj = ACTIVE, dj = ACTIVE;
mtype s = source_verifying, d = destination_receiving;
bool link = true;
bool source_runs = false, destination_runs = false; /* the VM was stopped before this begins */
bool source_crashed = false, destination_crashed = false, controller_crashed = false;
bool held = false; /* the mirror has all that is to follow */
bool gone = false; /* the source's host, for good */
bool here = false; /* all of the memory is at the destination */
bool host_lost = false, declared = false; /* the destination's; an operator's word */
bool forgotten = false; /* the VM was declared lost with it */
bool paused = false; /* it has given up to connect, and was told to try again */
chan to_source = [2] of {mtype};
chan to_destination = [1] of {mtype};

/* The controller's decision: durable. */
mtype = {undecided, to_commit, to_abort, to_reclaim, to_finish, to_forget};
mtype decided = undecided;

#define OWNS(word) (word == COMMITTED || word == COMMITTED_PARTLY)
#define SERVES     (s == source_given_up || s == source_serving || s == source_path_lost)

inline check()
{
    assert(!(source_runs && destination_runs));
    assert(!source_runs || (sj != GIVEN_UP && sj != COMMITTED));
    assert(!destination_runs || (OWNS(dj) && (sj == GIVEN_UP || sj == COMMITTED)));
}

inline source_resume()
{
    sj = ABORTED;
    source_runs = true;
    s = source_aborted;
    check();
}

/* In post-copy a copy that is prepared is worth nothing without its source. */
inline destination_abort()
{
    dj = ABORTED;
    d = destination_aborted;
}

inline destination_take_over()
{
    if
    :: POST -> dj = COMMITTED_PARTLY
    :: !POST -> dj = COMMITTED
    fi;
    d = destination_resuming;
}

active proctype source()
{
    do
    :: atomic { s == source_verifying && link && to_source?[prepared] ->
           to_source?prepared;
           if
           :: MIRROR && !held && BREAK != 7 -> s = source_mirroring
           :: !(MIRROR && !held && BREAK != 7) -> sj = GIVEN_UP; s = source_given_up
           fi }
    :: atomic { MIRROR && !held && (s == source_verifying || s == source_mirroring) -> held = true }
    :: atomic { s == source_mirroring && link && held -> sj = GIVEN_UP; s = source_given_up }
    :: atomic { s == source_mirroring -> s = source_resuming } /* no peer, no mirror, or no time */
    :: atomic { s == source_given_up && link && nfull(to_destination) && dj == PREPARED &&
           !to_destination?[commit] && d == destination_prepared -> to_destination!commit }
    :: atomic { s == source_given_up && link && to_source?[running] ->
           to_source?running;
           if
           :: POST -> s = source_serving
           :: !POST -> sj = COMMITTED; s = source_completed
           fi }
    :: atomic { s == source_serving && link && to_source?[whole] ->
           to_source?whole; sj = COMMITTED; s = source_completed }
    :: atomic { s == source_serving && !link -> s = source_path_lost }
    :: atomic { s == source_verifying && !link -> s = source_resuming }
    :: atomic { s == source_verifying -> s = source_resuming } /* cancelled, or out of time */
    :: atomic { s == source_resuming -> link = false; source_resume() }
    /* Orders. */
    :: atomic { decided == to_finish && !link && SERVES ->
           sj = COMMITTED; s = source_completed }
    :: atomic { decided == to_reclaim && !link && s == source_given_up && BREAK != 3 -> source_resume() }
    :: atomic { decided == to_forget && !link && SERVES ->
           sj = COMMITTED; s = source_completed; forgotten = true }
    :: atomic { BREAK == 2 && s == source_given_up && !link -> s = source_resuming }
    /* A crash, once, and the start behind it. */
    :: atomic { s != source_down && !source_crashed ->
           source_crashed = true; link = false; s = source_down }
    :: atomic { MIRROR && !gone && s != source_down && sj == GIVEN_UP && dj != ABORTED &&
           !(d == destination_down && dj == PREPARED) ->
           gone = true; source_crashed = true; link = false; s = source_down }
    :: atomic { s == source_down && !gone ->
           if
           :: sj == GIVEN_UP -> s = source_given_up
           :: sj == COMMITTED -> s = source_completed
           :: else -> source_resume()
           fi }
    od
}

active proctype destination()
{
    do
    :: atomic { d == destination_receiving && link && nfull(to_source) ->
           dj = PREPARED; d = destination_prepared; to_source!prepared }
    :: atomic { d == destination_receiving && !link -> destination_abort() }
    :: atomic { d == destination_prepared && link && to_destination?[commit] ->
           to_destination?commit; destination_take_over() }
    :: atomic { POST && !MIRROR && d == destination_prepared && !link && !here ->
           destination_abort() }
    :: atomic { d == destination_resuming && !link && POST && !here ->
           destination_runs = true; check(); d = destination_path_lost }
    :: atomic { d == destination_resuming && !(POST && !link && !here) ->
           destination_runs = true; check();
           if
           :: POST -> d = destination_fetching
           :: !POST -> d = destination_committed
           fi;
           if
           :: link && nfull(to_source) -> to_source!running
           :: else
           fi }
    :: atomic { POST && link && !here && (d == destination_prepared || d == destination_fetching) &&
           s != source_down -> here = true } /* the last line has come */
    :: atomic { d == destination_fetching && here ->
           dj = COMMITTED; d = destination_committed;
           if
           :: link && nfull(to_source) -> to_source!whole
           :: else
           fi }
    /* Behind it the VM runs on, and who touches what is not here waits. */
    :: atomic { d == destination_fetching && !here && !link -> d = destination_path_lost }
    :: atomic { d == destination_path_lost && !link && SERVES && empty(to_source) &&
           empty(to_destination) -> link = true; s = source_serving; d = destination_fetching }
    :: atomic { MIRROR && held && d == destination_path_lost && !link ->
           here = true; d = destination_fetching } /* from the mirror */
    :: atomic { d == destination_path_lost && !link && !paused ->
           paused = true; d = destination_paused }
    :: atomic { d == destination_paused -> d = destination_path_lost }
    :: atomic { d == destination_rejoining ->
           destination_runs = true; check();
           if
           :: here -> d = destination_fetching
           :: else -> d = destination_path_lost
           fi }
    /* Orders. */
    :: atomic { decided == to_commit && d == destination_prepared && !link &&
           !(POST && !here && !MIRROR) ->
           destination_take_over() }
    :: atomic { decided == to_abort && !link &&
           (d == destination_receiving || d == destination_prepared) -> destination_abort() }
    :: atomic { BREAK == 1 && d == destination_prepared && !link -> destination_take_over() }
    /* A crash: the VM's own process outlives its agent. */
    :: atomic { d != destination_down && !destination_crashed && !(gone && dj == PREPARED) ->
           destination_crashed = true; link = false; d = destination_down }
    /* With its host goes the VM's process; switched on again it is an agent without one. */
    :: atomic { LOST && !host_lost ->
           host_lost = true; link = false; destination_runs = false; d = destination_down }
    :: atomic { d == destination_down && !host_lost ->
           if
           :: dj == COMMITTED -> destination_runs = true; check(); d = destination_committed
           :: dj == COMMITTED_PARTLY -> d = destination_rejoining
           :: dj == PREPARED && !POST -> d = destination_prepared
           :: else -> destination_abort()
           fi }
    od
}

/* Looks at both sides, one after the other, and decides by what it saw. The decision outlives it;
 * what it saw does not. */
active proctype controller()
{
    mtype saw_source, saw_destination;
    bool source_stuck, destination_stuck;
    do
    :: atomic { s != source_down -> saw_source = sj;
           source_stuck = SERVES && !link }
       if
       :: atomic { d != destination_down -> saw_destination = dj;
              destination_stuck = d == destination_prepared && !link }
          if
          :: atomic { source_stuck && (saw_destination == COMMITTED ||
                 (BREAK == 4 && OWNS(saw_destination))) -> decided = to_finish }
          :: atomic { source_stuck && saw_destination == ABORTED -> decided = to_reclaim }
          :: atomic { source_stuck && destination_stuck && saw_destination == PREPARED ->
                 decided = to_commit }
          :: atomic { saw_source == ABORTED && destination_stuck -> decided = to_abort }
          :: else
          fi
       /* A host that is declared lost: by what was seen of it last, or the source knows. */
       :: atomic { (declared || BREAK == 6) && d == destination_down ->
              if
              :: !source_stuck || BREAK == 5
              :: source_stuck && (OWNS(saw_destination) || s == source_serving || s == source_path_lost) ->
                     decided = to_forget
              :: else -> decided = to_reclaim
              fi }
       :: atomic { !controller_crashed -> controller_crashed = true }
       fi
    /* An operator's word stands for a host that cannot speak any more. */
    :: atomic { gone && d == destination_prepared && !link && dj == PREPARED -> decided = to_commit }
    od
}

/* Says the truth, and only that. */
active proctype operator()
{
    atomic { host_lost -> declared = true }
}

/* Once, everything that is under way is lost. */
active proctype wire()
{
    bool cut = false;
    do
    :: atomic { link && !cut -> cut = true; link = false }
    :: atomic { !link && nempty(to_source) -> to_source?_ }
    :: atomic { !link && nempty(to_destination) -> to_destination?_ }
    od
}

#define source_owns      (source_runs && s == source_aborted)
#define destination_owns (destination_runs && d == destination_committed)
#define let_go           (declared && s == source_completed && !source_runs && !destination_runs)
#define settled          ((source_owns && !destination_runs) || (destination_owns && !source_runs) || let_go)

/* Never none for ever, and nothing is lost: from every point on, the VM gets an owner that runs it,
 * with all of its memory; or its last owner's host was declared lost. */
ltl ends { <> settled }
ltl never_two { [] !(source_runs && destination_runs) }
/* Whoever runs it at the destination has all of its memory there or a source that still has it. */
ltl memory_stays { [] ((OWNS(dj) && !here && POST) -> ((sj == GIVEN_UP && !gone) || held || declared)) }
