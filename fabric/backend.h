/* Between the shared half of the fabric and its back ends.
 *
 * The shared half (fabric.c, conn.c, protocol.c) speaks the protocol: hello, sequence, owner, crc,
 * credits, keepalives, one-sided reads, goodbye. A back end only carries frames (fabric/frame.h),
 * in order on each lane, and says when a peer has appeared or gone. It *pulls* frames when it can
 * send (tw_conn_next_frame) and hands in those that arrived (tw_conn_frame_in).
 *
 * Life of a connection (conn.c has the table):
 *
 *   client:  dialling -> greeting -> joining -> up -> down -> gone
 *   server:  incoming -> half ----------------> up -> down -> gone
 *
 * Ownership: the shared half allocates connections (conn_size bytes, struct tw_conn first) and
 * frees them at the end of a poll or in tw_fabric_close(), never while the back end is at work on
 * them. hang_up() is called exactly once for each and gives back what the back end holds of it. */
#ifndef TOWLINE_FABRIC_BACKEND_H
#define TOWLINE_FABRIC_BACKEND_H

#include "base/machine.h"
#include "fabric/fabric.h"
#include "fabric/frame.h"
#include "fabric/hello.h"

#define TW_READS_MAX          32u   /* one-sided reads that a side may have under way */
#define TW_URGENT_CREDITS     8u    /* chunks in flight on the urgent lane */
#define TW_CREDITS_MAX        1024u /* bulk; more is refused */
#define TW_REGIONS_MAX        256u
#define TW_FABRIC_ADDRESS_MAX 96u

struct tw_region;

struct tw_fabric_backend {
    const char *kind; /* "tcp" */
    size_t fabric_size, conn_size;
    /* Takes the reads of tw_conn.reads itself and ends them, instead of READ and DATA frames. */
    bool reads_itself;
    enum tw_code (*open)(struct tw_fabric *fabric, void *arg, struct tw_error *err);
    /* After hang_up() of every connection. Also after a failed open. */
    void (*close)(struct tw_fabric *fabric);
    /* Fills fabric->address. */
    enum tw_code (*listen)(struct tw_fabric *fabric, const char *address, struct tw_error *err);
    /* Begins to reach the address; tw_conn_connected() or tw_conn_lost() follows from poll. */
    enum tw_code (*connect)(struct tw_conn *conn, const char *address, struct tw_error *err);
    /* Client, after ACCEPT: brings up the bulk lane and pulls from it (a JOIN comes first). */
    enum tw_code (*join)(struct tw_conn *conn, struct tw_error *err);
    /* Client, after READY: bulk frames may be taken in from now on. May be NULL. */
    void (*up)(struct tw_conn *conn);
    /* There may be frames to pull on this lane. Reports trouble by tw_conn_lost(). */
    void (*flush)(struct tw_conn *conn, enum tw_lane lane);
    /* Sends what still goes without waiting, then lets go of the peer. */
    void (*hang_up)(struct tw_conn *conn);
    /* Memory becomes readable for holders of its token, and no longer is. May be NULL. */
    enum tw_code (*region_open)(struct tw_fabric *fabric, struct tw_region *region,
                                struct tw_error *err);
    void (*region_close)(struct tw_fabric *fabric, struct tw_region *region);
    unsigned (*poll)(struct tw_fabric *fabric, uint64_t deadline_ns);
    int (*fd)(const struct tw_fabric *fabric); /* NULL = none */
};

enum tw_conn_state {
    TW_CONN_DIALLING, /* client: the back end is reaching for the peer */
    TW_CONN_GREETING, /* client: HELLO is on its way */
    TW_CONN_JOINING,  /* client: accepted; the bulk lane is coming up */
    TW_CONN_INCOMING, /* server: on_accept is being asked */
    TW_CONN_HALF,     /* server: accepted; the peer has not joined its bulk lane yet */
    TW_CONN_UP,
    TW_CONN_DOWN, /* broken; on_down is due */
    TW_CONN_GONE, /* closed, refused or reported; freed at the next chance */
};
extern const struct tw_machine_table tw_conn_table;

/* One lane of a connection, both ways. Chunk n lives in slot n % credits until the peer has
 * consumed it, so that a credit and a buffer are the same thing. */
struct tw_lane_state {
    uint8_t *ring; /* credits slots of TW_FRAME_MAX bytes: chunk header, payload */
    uint32_t credits;
    bool begun;
    uint64_t next;     /* sequence of the next chunk to send */
    uint64_t pulled;   /* chunks that the back end has taken */
    uint64_t consumed; /* of them, by the peer */
    uint64_t expected; /* sequence of the next chunk to arrive = chunks consumed here */
    uint64_t told;     /* of them, told to the peer */
};

struct tw_read {
    uint64_t cookie;
    uint64_t address;
    uint32_t key;
    uint32_t length;
    void *into; /* outgoing only */
};

/* A queue of reads in order: [done, sent) are under way, [sent, next) wait to be sent. */
struct tw_reads {
    struct tw_read ring[TW_READS_MAX];
    uint64_t next, sent, done;
};

struct tw_conn {
    struct tw_fabric *fabric;
    struct tw_conn *sibling; /* list of the fabric */
    void *ctx;
    struct tw_machine machine;
    char label[TW_FABRIC_ADDRESS_MAX]; /* who the peer is, for messages */
    struct tw_hello ours, peer;
    uint8_t id[TW_FRAME_ID_SIZE]; /* server: set by the back end; client: from ACCEPT */
    struct tw_lane_state lanes[TW_LANES];
    struct tw_reads reads;    /* ours, of the peer's memory */
    struct tw_reads requests; /* the peer's, of ours */
    uint8_t *answer;          /* frame of the answer being sent; TW_FRAME_MAX bytes */
    uint8_t control[TW_LANES][TW_FRAME_HEADER + TW_GOODBYE_TEXT + 1]; /* frame being sent */
    uint32_t due;         /* frame kinds to send, bits */
    unsigned kicked;      /* lanes to flush, bits */
    uint64_t setup_by_ns; /* up by then, or down */
    uint64_t heard_ns;    /* last sign of the peer */
    uint64_t spoke_ns;    /* last sign given */
    struct tw_error why;
    bool accepted; /* the owner knows of it: on_down is owed */
    bool hung_up;
    struct tw_conn_stats stats;
};

struct tw_region {
    const uint8_t *memory; /* NULL = free entry */
    uint64_t length;
    uint32_t key;
    uint8_t token[TW_OWNER_SIZE];
    void *backend; /* what the back end has of it */
};

struct tw_fabric {
    const struct tw_fabric_backend *backend;
    struct tw_fabric_config config; /* defaults filled in */
    char name[64];
    char address[TW_FABRIC_ADDRESS_MAX];
    struct tw_conn *conns;
    uint32_t conn_count; /* those not gone */
    bool polling;
    uint32_t downs; /* connections whose on_down is due */
    struct tw_region regions[TW_REGIONS_MAX];
    uint32_t key_next;
};

/* ---- For back ends --------------------------------------------------------------------------- */

static inline uint64_t tw_fabric_now(const struct tw_fabric *fabric)
{
    return tw_now(fabric->config.clock);
}

static inline bool tw_conn_alive(const struct tw_conn *conn)
{
    return conn->machine.state < TW_CONN_DOWN;
}

/* Server: a HELLO has arrived. Makes a connection and asks the owner. NULL: refused, and *err is
 * what the peer should be told. `label` names the peer until its hello is known to be good. */
struct tw_conn *tw_conn_incoming(struct tw_fabric *fabric, const struct tw_frame *hello,
                                 const char *label, struct tw_error *err);
/* Server: finishes what tw_conn_incoming() began, once the back end has filled its part. False
 * when the owner refused; *err as above; the connection is then gone. */
bool tw_conn_ask(struct tw_conn *conn, struct tw_error *err);

/* Client: the peer was reached; HELLO can be pulled. */
void tw_conn_connected(struct tw_conn *conn);

/* The next frame to send on a lane; false when there is none now. The bytes stay valid until the
 * next call for the lane. */
bool tw_conn_next_frame(struct tw_conn *conn, enum tw_lane lane, const uint8_t **bytes,
                        uint32_t *length);

/* A whole frame that tw_frame_parse() liked has arrived on a lane. Afterwards the connection may
 * be dead: look (tw_conn_alive). */
void tw_conn_frame_in(struct tw_conn *conn, enum tw_lane lane, const struct tw_frame *frame);

/* Some bytes of the peer have arrived. */
static inline void tw_conn_heard(struct tw_conn *conn)
{
    conn->heard_ns = tw_fabric_now(conn->fabric);
}

/* Flushes the lanes on which the owner's callbacks have sent something. */
void tw_conn_settle(struct tw_conn *conn);

/* Between two bulk frames of one event: flushes what the owner has sent on the urgent lane. Credits
 * alone can wait for the end of the event. */
void tw_conn_settle_urgent(struct tw_conn *conn);

/* The transport is gone or has failed. */
void tw_conn_lost(struct tw_conn *conn, const struct tw_error *why);

/* The peer broke the protocol, or a chunk was not wanted: tells it why, then as above. */
void tw_conn_fail(struct tw_conn *conn, const struct tw_error *why);

/* A GOODBYE frame for a peer that gets no connection; returns its size. */
uint32_t tw_goodbye_encode(const struct tw_error *why,
                           uint8_t bytes[TW_FRAME_HEADER + TW_GOODBYE_TEXT]);

/* ---- Between fabric.c, conn.c and protocol.c ---------------------------------------------------
 */

struct tw_conn *tw_conn_new(struct tw_fabric *fabric, enum tw_conn_state state,
                            struct tw_error *err);
enum tw_code tw_conn_lanes_open(struct tw_conn *conn, const uint64_t credits[TW_LANES],
                                struct tw_error *err);
void tw_conn_free(struct tw_conn *conn);
void tw_conn_move(struct tw_conn *conn, enum tw_conn_state to, const char *why);
void tw_conn_kick(struct tw_conn *conn, enum tw_lane lane);
void tw_conn_due(struct tw_conn *conn, enum tw_frame_kind kind);
/* Timers; the next time that one of them is due. */
void tw_conn_tick(struct tw_conn *conn, uint64_t now_ns);
uint64_t tw_conn_tick_next(const struct tw_conn *conn);
uint64_t tw_fabric_tick_next(const struct tw_fabric *fabric);
/* The region behind a key for holders of `token`, if [address, address+length) is inside. */
const uint8_t *tw_fabric_region(const struct tw_fabric *fabric, uint32_t key, uint64_t address,
                                uint64_t length, const uint8_t token[TW_OWNER_SIZE]);

#endif
