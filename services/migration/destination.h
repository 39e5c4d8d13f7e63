/* The destination side, as its own files see it. Internal to the service.
 *
 *   destination.c         the table, what others may ask, how it ends
 *   destination_stream.c  what the source sends
 *   destination_switch.c  from the complete state to the running VM */
#ifndef TOWLINE_SERVICES_MIGRATION_DESTINATION_H
#define TOWLINE_SERVICES_MIGRATION_DESTINATION_H

#include "services/migration/meter.h"
#include "services/migration/mutations.h"
#include "services/migration/received.h"
#include "services/migration/side.h"

enum tw_destination_state {
    TW_DESTINATION_NEW,
    TW_DESTINATION_WAITING,
    TW_DESTINATION_RECEIVING,
    TW_DESTINATION_LOADING_STATE,
    TW_DESTINATION_VERIFYING,
    TW_DESTINATION_PREPARING,
    TW_DESTINATION_PREPARED,
    TW_DESTINATION_COMMITTING,
    TW_DESTINATION_RESUMING,
    TW_DESTINATION_COMMITTED,
    TW_DESTINATION_ABORTING,
    TW_DESTINATION_ABORTED,
    TW_DESTINATION_LOST,
    TW_DESTINATION_STATES
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
    bool readied, staged, prepared_said, continue_asked, continuing;
};

/* ---- destination.c --------------------------------------------------------------------------- */

void tw_destination_move(struct tw_destination *d, enum tw_destination_state to, const char *why);
bool tw_destination_is_before_prepared(const struct tw_destination *d);
/* Ends the migration without the VM ever having run here. */
void tw_destination_give_back(struct tw_destination *d, const struct tw_error *why);
void tw_destination_lose(struct tw_destination *d);
void tw_destination_note_error(struct tw_destination *d, const struct tw_error *why);
/* Takes the VM over: durable first. On failure it stays prepared. */
enum tw_code tw_destination_take_over(struct tw_destination *d, const char *why,
                                      struct tw_error *err);

/* ---- destination_stream.c ---------------------------------------------------------------------
 */

enum tw_code tw_destination_on_chunk(void *side, enum tw_lane lane,
                                     const struct tw_chunk_header *header, const uint8_t *payload,
                                     struct tw_error *err);

/* ---- Steps ------------------------------------------------------------------------------------
 */

uint64_t tw_destination_step_receiving(struct tw_destination *d, uint64_t now_ns);
uint64_t tw_destination_step_loading_state(struct tw_destination *d, uint64_t now_ns);
uint64_t tw_destination_step_verifying(struct tw_destination *d, uint64_t now_ns);
uint64_t tw_destination_step_preparing(struct tw_destination *d, uint64_t now_ns);
uint64_t tw_destination_step_prepared(struct tw_destination *d, uint64_t now_ns);
uint64_t tw_destination_step_resuming(struct tw_destination *d, uint64_t now_ns);
uint64_t tw_destination_step_aborting(struct tw_destination *d, uint64_t now_ns);

#endif
