/* Two agents, a network and a controller in virtual time: one migration from its start until one
 * side, and only one, owns the VM for good. Faults strike when a side enters a given state. */
#ifndef TOWLINE_SERVICES_MIGRATION_TESTS_SCENE_H
#define TOWLINE_SERVICES_MIGRATION_TESTS_SCENE_H

#include "fabric/sim.h"
#include "services/migration/mirror.h"
#include "services/migration/mutations.h"
#include "services/migration/tests/fake_host.h"

enum scene_action {
    SCENE_NOTHING,
    SCENE_CANCEL,
    SCENE_CUT,         /* both ways, for good; behind the switch, until an operator looks */
    SCENE_CUT_SHORTLY, /* mended 50 ms later: the connection outlives it */
    SCENE_CUT_LONG,    /* mended 5.2 s later: it does not */
    SCENE_DROP_CHUNKS, /* count of them */
    SCENE_KILL_SOURCE_VM,
    SCENE_KILL_DESTINATION_VM,
    SCENE_CRASH_SOURCE, /* the agent, which starts again later; the VM's process lives on */
    SCENE_CRASH_DESTINATION,
    SCENE_ABORT_DESTINATION,   /* a decision that is only taken while the source has not given up */
    SCENE_FAIL_SOURCE_JOURNAL, /* the next `count` writes */
    SCENE_FAIL_DESTINATION_JOURNAL,
    SCENE_FAIL_STOP,
    SCENE_FAIL_SAVE,
    SCENE_FAIL_SOURCE_CONTINUE,
    SCENE_FAIL_DESTINATION_CONTINUE,
    SCENE_FAIL_LOAD,
    SCENE_FAIL_HOOK,
    SCENE_FAIL_RESERVE,
    SCENE_FAIL_GUARD,
    SCENE_FAIL_REJOIN,
    SCENE_SWITCH,           /* the operator wants the VM to move now */
    SCENE_PAUSE,            /* ... or nothing to be sent, */
    SCENE_RESUME,           /* and to go on */
    SCENE_NO_PACE,          /* no budget of slow-down any more */
    SCENE_SLOW_LINK,        /* set_bandwidth to something small */
    SCENE_LOSE_SOURCE_HOST, /* agent, VM and its memory, for good */
    SCENE_CRASH_MIRROR,     /* its agent, and what it holds with it */
    SCENE_CUT_MIRROR,       /* from both others, for 5.2 s */
    SCENE_ACTIONS
};

#define SCENE_AT_MIRROR 0x100u
struct scene_fault {
    bool at_source;    /* which machine */
    unsigned state;    /* strikes when it is entered for the first time; | SCENE_AT_MIRROR */
    uint64_t delay_ns; /* after that; failures of operations are armed at once */
    enum scene_action action;
    unsigned count;
};
#define SCENE_FAULTS_MAX 4u

struct scene_config {
    uint64_t seed;
    uint64_t pages;
    enum fake_link link;
    bool sees_all_writers;
    uint32_t stores_per_ms, unseen_percent, hot_pages;
    uint64_t unseen_until_ns;
    bool hook;
    struct tw_migration_limits limits;
    uint32_t corrupt_ppm;
    uint64_t link_bytes_per_s;
    struct tw_migration_mutations at_source, at_destination, at_mirror;
    bool mirror;
    struct scene_fault faults[SCENE_FAULTS_MAX];
    unsigned fault_count;
    bool never_connects; /* the source is not started */
    enum fake_touches touches;
    bool by_line;
};

struct scene_journal {
    enum tw_hand_over durable; /* 0 = nothing */
    unsigned fail;             /* of the next writes */
    unsigned writes;
};

struct scene_side {
    struct scene *scene;
    bool is_source;
    struct fake_host host;
    struct scene_journal journal;
    uint64_t restart_ns; /* a crashed agent starts again; 0 = it runs */
    bool vm_was_killed;
    bool vm_was_stranded; /* its memory could not follow it */
    bool gone;            /* source: given up, and neither process nor memory are left */
    bool host_lost;       /* ... and nobody is there who could say so */
    uint64_t *kept;       /* destination: what outlives its agent */
    uint64_t kept_words;
};

struct scene {
    struct scene_config config;
    struct tw_sim *sim;
    const struct tw_clock *clock;
    struct tw_fabric *fabric[2]; /* 0 = source, 1 = destination */
    struct scene_side side[3];   /* 2 = the mirror, which has no machine */
    struct tw_source *source;    /* NULL: not started, crashed, or ended and forgotten */
    struct tw_destination *destination;
    struct tw_mirror *mirror; /* NULL: none, or crashed */
    struct tw_fabric *mirror_fabric;
    bool mirror_complete; /* at some time */
    bool mirror_told;     /* to release, by the controller, as nobody else had done it */
    uint64_t mirror_mend_ns;
    struct tw_migration_params params;
    struct {
        bool armed, struck;
        uint64_t due_ns;
    } fault[SCENE_FAULTS_MAX];
    uint64_t mend_ns, operator_ns;
    bool hook_fails, hook_runs;
    uint64_t hook_ends_ns;

    /* What came of it. */
    char problem[256]; /* the first broken rule; "" = none */
    bool stuck;
    unsigned operator_resumes;  /* of a VM that was left without a path */
    uint64_t found_before_stop; /* lines_found_by_compare_only when the VM was stopped */
    bool memory_checked, memory_equal;
    struct tw_migration_progress at_source, at_destination;
    struct tw_mirror_progress at_mirror; /* when it was served from last, or at the end */
    struct tw_error source_error, destination_error;
    enum tw_hand_over source_end, destination_end;
    uint64_t end_ns;
};

/* Moves taken by a table since the program began: [0] source, [1] destination, [2] mirror. */
extern bool scene_taken[3][64][64];

/* Plays a scene to its end; everything is freed again. Returns true when no rule was broken. */
bool scene_play(struct scene *s, const struct scene_config *config);
/* The same, and the problem goes to standard error together with what leads there again. */
bool scene_play_loud(struct scene *s, const struct scene_config *config);

/* ---- scene_mirror.c: the third agent, where a scene has one ------------------------------------
 */

#define SCENE_CUT_LONG_NS (5200 * TW_MS)

void scene_problem(struct scene *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
void scene_trace(void *ctx, const struct tw_machine *machine, unsigned from, unsigned to,
                 const char *why);
extern const struct tw_fabric_events scene_events;

void scene_mirror_open(struct scene *s);
void scene_mirror_start(struct scene *s);   /* before the others */
void scene_mirror_connect(struct scene *s); /* the source has started */
uint64_t scene_mirror_step(struct scene *s);
void scene_mirror_strike(struct scene *s, enum scene_action action);
enum tw_code scene_mirror_accept(struct scene *s, struct tw_conn *conn,
                                 const struct tw_hello *hello, void **conn_ctx,
                                 struct tw_error *err);
enum tw_code scene_mirror_dial(void *ctx, const struct tw_hello *hello, uint64_t deadline_ns,
                               void *conn_ctx, struct tw_conn **conn, struct tw_error *err);
/* Whether it still holds what a destination lacks. */
bool scene_mirror_helps(const struct scene *s);
/* The controller, when all else has ended: true when the mirror has, too. */
bool scene_mirror_ended(struct scene *s);
void scene_mirror_close(struct scene *s);

/* An undisturbed migration of a small VM. */
struct scene_config scene_plain(uint64_t seed);

#endif
