/* The destination side, as its own files see it. Internal to the service.
 *
 *   destination.c         the table, what others may ask, how it ends
 *   destination_stream.c  what the source sends
 *   destination_switch.c  from the complete state to the running VM
 *   destination_postcopy.c  what follows the VM: its map, its lines, its end
 *   destination_faults.c  touches of memory that is not there yet
 *   destination_recover.c  the path was lost, or the agent, while memory follows */
#ifndef TOWLINE_SERVICES_MIGRATION_DESTINATION_H
#define TOWLINE_SERVICES_MIGRATION_DESTINATION_H

#include "services/migration/line_set.h"
#include "services/migration/meter.h"
#include "services/migration/mutations.h"
#include "services/migration/received.h"
#include "services/migration/side.h"

enum tw_destination_state {
    TW_DESTINATION_NEW,
    TW_DESTINATION_WAITING,
    TW_DESTINATION_RECEIVING,
    TW_DESTINATION_GUARDING,
    TW_DESTINATION_LOADING_STATE,
    TW_DESTINATION_VERIFYING,
    TW_DESTINATION_PREPARING,
    TW_DESTINATION_PREPARED,
    TW_DESTINATION_COMMITTING,
    TW_DESTINATION_REJOINING,
    TW_DESTINATION_RESUMING,
    TW_DESTINATION_FETCHING,
    TW_DESTINATION_PATH_LOST,
    TW_DESTINATION_PAUSED,
    TW_DESTINATION_COMMITTED,
    TW_DESTINATION_ABORTING,
    TW_DESTINATION_ABORTED,
    TW_DESTINATION_LOST,
    TW_DESTINATION_STATES
};

/* As many touches as can wait in a guest: each vCPU, and the threads of its process. */
#define TW_WAITING_MAX  128u
#define TW_WAIT_BUCKETS 128u /* of waiting times: four an octave */
/* Of the pages that came because the guest was likely to touch them, one in so many stays closed
 * until it does: that costs it a wait of a few microseconds and tells whether the guess was good.
 */
#define TW_WATCH_ONE_IN 8u

struct tw_waiting {
    uint64_t page;
    uint32_t critical; /* line */
    bool asked;
    uint64_t since_ns;
};

/* Post-copy: what has not arrived yet. */
struct tw_missing {
    struct tw_line_set lines;
    uint64_t *kept; /* where `lines` outlive the agent; NULL = nowhere */
    struct tw_waiting waiting[TW_WAITING_MAX];
    unsigned waiting_count;
    uint64_t room_at; /* page up to which there is room */
    uint64_t digest;  /* of the lines that came, as they came */
    uint64_t came;    /* lines */
    uint64_t waits[TW_WAIT_BUCKETS];
    uint64_t *watched;                 /* bitmap of complete pages that are still closed */
    struct tw_foresight_figures ahead; /* pages that came before their turn */
    uint64_t touched;                  /* of the watched ones; other threads count, too */
    uint64_t retry_ns;
    bool announced, room_said; /* while the VM runs at the source */
    bool mapped;               /* the map is final: from here on lines are what follows */
    bool shown;                /* the host looks at what is missing */
    bool guarded, released, running_said, durable;
};

/* Post-copy: a path that was lost, and the way back. */
struct tw_recovery {
    uint64_t lost_ns, deadline_ns, retry_ns;
    uint64_t cursor;  /* page up to which was named what is missing */
    unsigned tries;   /* since the mirror may be asked, too */
    bool from_mirror; /* an operator has said so, or it has served before */
    bool at_mirror;   /* the present connection, or the last */
    bool up, packed;  /* of the present connection: accepted; all was named */
    bool digest_lost; /* with an agent: what came before it cannot be compared */
};

struct tw_destination {
    struct tw_migration_end end;
    struct tw_machine machine;
    struct tw_migration_env env;
    struct tw_migration_params params;
    struct tw_migration_limits limits; /* complete */
    struct tw_host *host;
    struct tw_host_call call;
    struct tw_conn *conn;
    struct tw_received received;
    struct tw_meter meter;
    struct tw_missing missing;
    struct tw_recovery recovery;
    struct tw_farewell farewell;
    struct tw_migration_mutations mutations;
    enum tw_hand_over hand_over;
    struct tw_error error;
    bool failed;

    /* What the connection told; handled by the next step. */
    bool down, peer_aborted, refused, commit_asked;
    struct tw_error trouble; /* why it is down, aborted or refused */

    /* The stream. */
    bool begun, lines_complete, state_complete, compared, differs;
    struct tw_control_begin begin;
    struct tw_control_final_end final;
    struct tw_host_state device_state;
    size_t state_room;
    uint64_t chunks, chunks_seen;

    uint64_t deadline_ns, retry_ns, phase_ns;
    bool readied, staged, prepared_said, continue_asked, continuing, continued;
};

/* ---- destination.c --------------------------------------------------------------------------- */

void tw_destination_move(struct tw_destination *d, enum tw_destination_state to, const char *why);
bool tw_destination_is_before_prepared(const struct tw_destination *d);
/* Ends the migration without the VM ever having run here. */
void tw_destination_give_back(struct tw_destination *d, const struct tw_error *why);
void tw_destination_lose(struct tw_destination *d);
void tw_destination_close_connection(struct tw_destination *d);
enum tw_code tw_destination_new(const struct tw_migration_env *env,
                                const struct tw_migration_params *params, struct tw_host *host,
                                struct tw_destination **destination, struct tw_error *err);
void tw_destination_note_error(struct tw_destination *d, const struct tw_error *why);
/* Takes the VM over: durable first. On failure it stays prepared. */
enum tw_code tw_destination_take_over(struct tw_destination *d, const char *why,
                                      struct tw_error *err);

/* ---- destination_postcopy.c, destination_faults.c ---------------------------------------------
 */

/* The source follows up on a VM that runs before its memory is whole. */
static inline bool tw_destination_postcopies(const struct tw_destination *d)
{
    return d->begin.method != TW_METHOD_PRE_COPY;
}

enum tw_code tw_destination_take_map(struct tw_destination *d, const struct tw_chunk_header *header,
                                     const uint8_t *payload, struct tw_error *err);
enum tw_code tw_destination_take_map_end(struct tw_destination *d,
                                         const struct tw_control_map_end *m, struct tw_error *err);
/* Lines behind the map. */
enum tw_code tw_destination_take_rest(struct tw_destination *d,
                                      const struct tw_chunk_header *header, const uint8_t *payload,
                                      struct tw_error *err);
/* Makes room for what the map names, a slice at a time; true when there is room for all. */
bool tw_destination_make_room(struct tw_destination *d, uint64_t now_ns);
/* What the digest of the memory here lacks, or has too much, while lines are to come. */
uint64_t tw_destination_digest(const struct tw_destination *d);
/* The host may look at what is missing, to let go by itself who touches what is there. */
void tw_destination_show_missing(struct tw_destination *d);
/* Ends the guard; what waited goes on. */
void tw_destination_release(struct tw_destination *d);
/* Looks for touches and asks for what they wait for; returns when to call again. */
uint64_t tw_destination_serve(struct tw_destination *d, uint64_t now_ns);
/* What a touch waits for here: a line, or all of its page. */
static inline bool tw_destination_by_line(const struct tw_destination *d)
{
    return d->host->faults->ready_lines != NULL;
}
/* Whoever waits for these lines of a page goes on; where whole pages wait, for any of it. */
enum tw_code tw_destination_ready(struct tw_destination *d, uint64_t page, uint64_t lines,
                                  struct tw_error *err);
/* A page is whole that the guest was likely to touch: whether it stays closed to see if it does. */
bool tw_destination_watch(struct tw_destination *d, uint64_t page);
struct tw_foresight_figures tw_destination_foresight(const struct tw_destination *d);
/* The time that `percent` of the waits so far did not exceed; 0 = there were none. */
uint64_t tw_destination_wait_ns(const struct tw_destination *d, unsigned percent);

/* ---- destination_recover.c --------------------------------------------------------------------
 */

/* Opens the set of lines that are to come, where it outlives the agent if there is such a place. */
enum tw_code tw_destination_keep_lines(struct tw_destination *d, struct tw_error *err);
void tw_destination_keep_map(struct tw_destination *d); /* the set is complete */
void tw_destination_lose_path(struct tw_destination *d, const char *why, uint64_t now_ns);
void tw_destination_on_up(void *side);

/* ---- destination_stream.c ---------------------------------------------------------------------
 */

enum tw_code tw_destination_on_chunk(void *side, enum tw_lane lane,
                                     const struct tw_chunk_header *header, const uint8_t *payload,
                                     struct tw_error *err);
/* What the source sent does not belong here: INVALID_ARGUMENT, and the connection ends. */
enum tw_code tw_destination_out_of_place(const struct tw_destination *d, const char *what,
                                         struct tw_error *err);
/* Our own trouble: OK, the connection stays, so that the source can be told why. */
enum tw_code tw_destination_refuse(struct tw_destination *d, const struct tw_error *why);

/* ---- Steps ------------------------------------------------------------------------------------
 */

uint64_t tw_destination_step_receiving(struct tw_destination *d, uint64_t now_ns);
uint64_t tw_destination_step_guarding(struct tw_destination *d, uint64_t now_ns);
uint64_t tw_destination_step_loading_state(struct tw_destination *d, uint64_t now_ns);
uint64_t tw_destination_step_verifying(struct tw_destination *d, uint64_t now_ns);
uint64_t tw_destination_step_preparing(struct tw_destination *d, uint64_t now_ns);
uint64_t tw_destination_step_prepared(struct tw_destination *d, uint64_t now_ns);
/* Has the VM run, if it does not yet; returns when to call again, TW_NEVER when it runs. */
uint64_t tw_destination_continue(struct tw_destination *d, uint64_t now_ns);
uint64_t tw_destination_step_rejoining(struct tw_destination *d, uint64_t now_ns);
uint64_t tw_destination_step_resuming(struct tw_destination *d, uint64_t now_ns);
uint64_t tw_destination_step_fetching(struct tw_destination *d, uint64_t now_ns);
uint64_t tw_destination_step_path_lost(struct tw_destination *d, uint64_t now_ns);
uint64_t tw_destination_step_paused(struct tw_destination *d, uint64_t now_ns);
uint64_t tw_destination_step_aborting(struct tw_destination *d, uint64_t now_ns);

#endif
