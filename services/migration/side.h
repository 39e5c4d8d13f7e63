/* What the source and the destination have in common. Internal to the service. */
#ifndef TOWLINE_SERVICES_MIGRATION_SIDE_H
#define TOWLINE_SERVICES_MIGRATION_SIDE_H

#include "services/migration/control.h"
#include "services/migration/migration.h"

#include <stdbool.h>

#define TW_HOST_CALL_LIMIT_NS (20 * TW_SEC) /* one operation of the host */
#define TW_RETRY_NS           (100 * TW_MS) /* before a failed continue or journal is tried again */
#define TW_LINGER_NS          (2 * TW_SEC) /* for the last message to arrive before we close */
#define TW_BLOCKED_NS         TW_MS         /* no credit: look again, unless the fabric wakes us */
#define TW_POLL_NS            (TW_MS / 2)   /* an operation of the host is under way */
#define TW_REDIAL_NS          (250 * TW_MS) /* before a lost path is tried again */
#define TW_DIAL_LIMIT_NS      (5 * TW_SEC)  /* one attempt */
#define TW_RECOVER_DEFAULT_NS (600 * TW_SEC)

/* The face that a side shows to the fabric. */
struct tw_migration_end {
    void (*up)(void *side);
    enum tw_code (*chunk)(void *side, enum tw_lane lane, const struct tw_chunk_header *header,
                          const uint8_t *payload, struct tw_error *err);
    void (*down)(void *side, const struct tw_error *why);
    void *side;
};

/* An operation of the host, begun and then polled. */
struct tw_host_call {
    struct tw_host *host;
    bool busy;
};
enum tw_code tw_host_call_begin(struct tw_host_call *call, enum tw_host_operation op,
                                const struct tw_host_state *state, uint64_t now_ns,
                                struct tw_error *err);
/* True when it has ended, with its result in *code. `state` NULL: a saved state is dropped. */
bool tw_host_call_poll(struct tw_host_call *call, struct tw_host_state *state, enum tw_code *code,
                       struct tw_error *err);

bool tw_host_alive(const struct tw_host *host);

/* Messages that are due but wait for credit, and the end of the connection after the last. */
struct tw_farewell {
    bool due;       /* `message` still has to be sent */
    uint64_t until; /* then we close whatever happens; 0 = no farewell under way */
    enum tw_control_kind kind;
    union tw_control message;
};
void tw_farewell_say(struct tw_farewell *f, enum tw_control_kind kind,
                     const union tw_control *message, uint64_t now_ns);
/* Sends, waits until the peer has it, closes *conn and sets it to NULL. Returns when to call
 * again; TW_NEVER once the connection is closed. */
uint64_t tw_farewell_step(struct tw_farewell *f, struct tw_conn **conn, uint64_t now_ns);

/* "migration m-1" */
#define TW_WHERE_SIZE (TW_ID_SIZE + 16)
const char *tw_migration_where(const struct tw_migration_params *params, char out[TW_WHERE_SIZE]);

enum tw_code tw_migration_params_check(const struct tw_migration_params *params,
                                       const struct tw_host *host, struct tw_error *err);

#endif
