/* The verbs back end, for its own files only. docs/fabric.md tells the whole.
 *
 *   verbs.c         the table, poll, timers: breaks, reconnects
 *   verbs_device.c  the device, protection domains, registered memory
 *   verbs_link.c    the queue pairs of a connection, as long as they last
 *   verbs_slow.c    what may wait in the kernel, in threads of its own
 *   verbs_cm.c      the connection manager's events: requests, refusals, greetings
 *   verbs_send.c    messages out: chains, doorbells, credit
 *   verbs_recv.c    completions, messages in
 *   verbs_read.c    one-sided reads
 *
 * A connection (verbs_conn) outlives its queue pairs: streams, rings and what was not consumed stay
 * when a link (verbs_link: one set of queue pairs and completion queues) breaks, and go on with the
 * next one. When a connection is hung up, its link lingers without it until the last words have
 * left. */
#ifndef TOWLINE_FABRIC_VERBS_PARTS_H
#define TOWLINE_FABRIC_VERBS_PARTS_H

#include "fabric/backend.h"
#include "fabric/tcp.h" /* addresses */
#include "fabric/verbs.h"
#include "fabric/verbs_hello.h"
#include "fabric/verbs_ring.h"

#include <infiniband/verbs.h>
#include <pthread.h>
#include <rdma/rdma_cma.h>

#define VERBS_STRIDE       TW_FRAME_MAX /* of a slot */
#define VERBS_URGENT_SLOTS 16u          /* of an urgent ring */
#define VERBS_COPY         512u         /* bytes; the longest message that is not a chunk */
#define VERBS_GREETING     128u         /* bytes of a greeting's buffer */
#define VERBS_CHAIN        32u          /* work requests under one doorbell */
#define VERBS_SIGNAL_EVERY 16u          /* work requests a completion */
#define VERBS_INLINE       256u         /* bytes wanted inside a work request */
#define VERBS_READ_DEPTH   16u          /* RDMA READs under way a queue pair */
#define VERBS_SLICES_MAX   65536u       /* known places of the peer's memory */
static_assert(VERBS_COPY >= TW_FRAME_HEADER + TW_GOODBYE_TEXT, "the longest control frame fits");
static_assert(VERBS_COPY >= TW_FRAME_HEADER + TW_HELLO_BYTES, "a hello fits");
static_assert(VERBS_QUEUES_MAX == TW_VERBS_BULK_QUEUES_MAX, "one limit");

struct verbs_conn;
struct verbs_fabric;

/* Memory regions and queue pairs of one token share a protection domain, so that the device itself
 * keeps holders of other tokens out. */
struct verbs_domain {
    struct verbs_domain *next;
    struct ibv_pd *pd;
    unsigned uses;
    uint8_t token[TW_OWNER_SIZE];
};

/* What a connection has registered; one allocation, shared with links that outlive it.
 *
 *   | acks | greetings | copies | urgent ring | bulk ring |
 *
 * Each part is a registration with no more rights than it needs. */
struct verbs_memory {
    unsigned uses;
    uint8_t *bytes;
    size_t size;
    uint64_t *acks;     /* TW_LANES numbers that the peer writes: messages consumed */
    uint8_t *greetings; /* per queue pair: one that came, one that leaves */
    uint8_t *copies;    /* small messages that leave, until they are consumed */
    uint8_t *rings[TW_LANES];
    struct ibv_mr *acks_mr, *local_mr, *rings_mr;
    struct ibv_mr *chunks_mr[TW_LANES]; /* of the chunks that leave: the shared half's rings */
    uint8_t *reads; /* TW_READS_MAX * TW_CHUNK_PAYLOAD bytes, from the first read on */
    struct ibv_mr *reads_mr;
};

enum verbs_queue_state {
    VERBS_IDLE,
    VERBS_RESOLVING, /* client: address */
    VERBS_ROUTING,   /* client */
    VERBS_CONNECTING,
    VERBS_GREETING_DUE, /* the peer's greeting is awaited */
    VERBS_READY,
};

/* An rdma_connect() under way. */
struct verbs_call {
    struct verbs_private priv;
    struct rdma_conn_param param;
    pthread_t thread;
    bool running; /* `thread` is to be joined */
    bool done;    /* atomic: `number`, the errno, is there */
    int number;
};

struct verbs_queue {
    struct verbs_link *link;
    struct rdma_cm_id *id; /* NULL = none */
    enum tw_lane lane;
    unsigned index; /* among bulk */
    enum verbs_queue_state state;
    uint32_t depth;          /* work requests that fit */
    uint32_t inline_max;     /* bytes */
    uint64_t posted;         /* work requests given to the device */
    uint64_t done;           /* of them, known to be done */
    uint64_t signalled;      /* the last of them that will tell */
    uint64_t nudge_ns;       /* client on iWARP, GREETING_DUE: when to nudge the peer; 0 = never */
    uint64_t nudge_after_ns; /* ... and how long behind the last time */
    struct verbs_call call;
};

struct verbs_link {
    struct verbs_link *next; /* list of those that linger, or are being freed */
    struct verbs_fabric *fabric;
    struct verbs_conn *conn; /* NULL: lingers, or is being freed */
    struct ibv_cq *cqs[TW_LANES];
    unsigned cq_events[TW_LANES]; /* taken, to be acknowledged */
    bool hot[TW_LANES];           /* there may be completions or messages to consume */
    bool starved[TW_LANES];       /* messages wait for a slot or for room in a queue */
    bool failed;
    struct tw_error why;
    struct verbs_queue urgent;
    struct verbs_queue bulk[VERBS_QUEUES_MAX];
    uint64_t give_up_ns; /* ready by then, or it has failed; later: lingers until then */
    /* Of the connection that it outlives: */
    struct verbs_memory *memory;
    struct verbs_domain *domain;
    uint8_t *chunks[TW_LANES];
    pthread_t farewell; /* frees the queue pairs */
    bool retired;       /* atomic: it has */
};

/* A message that leaves, kept until it is consumed. */
struct verbs_message {
    const uint8_t *bytes;
    uint32_t length;
    bool chunk;
};

/* A piece of the peer's memory that we may read. */
struct verbs_slice {
    uint32_t key; /* of the region */
    uint32_t rkey;
    uint64_t start, length; /* in the region */
    uint64_t address;       /* of its start, for the device */
};

enum verbs_read_state { VERBS_READ_WAITS, VERBS_READ_POSTED, VERBS_READ_DONE };

struct verbs_reads {
    enum verbs_read_state state[TW_READS_MAX];
    enum tw_code code[TW_READS_MAX];
    uint64_t place[TW_READS_MAX]; /* POSTED: among the queue's work requests */
    struct verbs_slice *slices;   /* sorted by key, then start */
    size_t slice_count, slice_room;
    bool asking;         /* a LOOKUP is to be sent or not answered yet, for: */
    bool ask_due;        /* it is to be sent */
    uint64_t ask_number; /* of the read */
    struct tw_read ask;
    bool answer_due; /* the peer's LOOKUP is to be answered, about: */
    uint32_t answer_key;
    uint64_t answer_address;
};

struct verbs_conn {
    struct tw_conn base;
    bool client;
    bool greeted;               /* server: the full hello has come */
    bool broken;                /* up, but its queue pairs are lost: waits for others */
    unsigned queues;            /* bulk queue pairs agreed on */
    union tcp_address address;  /* client: of the peer */
    struct rdma_cm_id *request; /* server: not yet answered */
    struct verbs_domain *domain;
    struct verbs_link *link; /* NULL = none now */
    struct verbs_link *old;  /* broken and silenced; freed when the peer can be reached again */
    struct verbs_memory *memory;
    struct verbs_stream streams[TW_LANES];
    struct verbs_message *out[TW_LANES]; /* out_slots of them */
    uint32_t *arrived[TW_LANES];         /* per slot of our ring: bytes that came, 0 = none */
    struct verbs_place peer_rings[TW_LANES];
    struct verbs_place peer_acks;
    struct verbs_reads reads;
    uint64_t redial_ns; /* client, broken: when to try again */
    unsigned retold;    /* client: refusals that came without a word */
};

struct verbs_fabric {
    struct tw_fabric base;
    struct tw_verbs_config config; /* defaults filled in */
    struct rdma_event_channel *events;
    struct rdma_cm_id *listener; /* NULL = none */
    union tcp_address bound;     /* of it */
    union tcp_address source;    /* to connect from; family 0 = as the routes say */
    struct ibv_context *context; /* NULL = not decided yet */
    struct ibv_device_attr attributes;
    struct ibv_comp_channel *completions;
    bool iwarp;           /* messages go by SEND */
    bool strict_memlock;  /* the device looks at the limit even of root */
    struct ibv_cq *cover; /* Soft-iWARP: see verbs_device.c */
    int set;              /* epoll */
    int again;            /* eventfd: there is work though no descriptor says so */
    struct verbs_domain *domains;
    struct verbs_link *lingering;
    struct verbs_link *retiring; /* a thread frees their queue pairs */
    uint8_t *scratch;            /* a message on its way in; the peer cannot change it any more */
    struct tw_conn *turn;        /* whose bulk is served next */
    uint64_t looked_ns;          /* when poll last looked at descriptors */
    struct tw_verbs_stats stats;
};

static inline struct verbs_fabric *verbs_fabric_of(const struct tw_conn *conn)
{
    return (struct verbs_fabric *)conn->fabric;
}

static inline struct verbs_queue *verbs_queue_of(struct verbs_link *link, enum tw_lane lane,
                                                 unsigned index)
{
    return lane == TW_LANE_URGENT ? &link->urgent : &link->bulk[index];
}

static inline unsigned verbs_queue_count(const struct verbs_conn *conn, enum tw_lane lane)
{
    return lane == TW_LANE_URGENT ? 1 : conn->queues;
}

/* ---- verbs.c ------------------------------------------------------------------------------- */

/* The link has failed: the connection waits for another one, or goes down. */
void verbs_break(struct verbs_conn *conn);

/* ---- verbs_device.c -------------------------------------------------------------------------- */

/* Takes the device as the fabric's, or checks that it is. */
enum tw_code verbs_device_adopt(struct verbs_fabric *f, struct ibv_context *context,
                                struct tw_error *err);
/* The named one, else the first; for memory that is registered before any address is used. */
enum tw_code verbs_device_find(struct verbs_fabric *f, struct tw_error *err);
/* TW_OK if `bytes` more may be pinned. */
enum tw_code verbs_memlock_check(const struct verbs_fabric *f, uint64_t bytes, const char *where,
                                 struct tw_error *err);
struct verbs_domain *verbs_domain_get(struct verbs_fabric *f, const uint8_t token[TW_OWNER_SIZE],
                                      struct tw_error *err);
void verbs_domain_put(struct verbs_fabric *f, struct verbs_domain *domain);
/* Registers memory and counts its cost. */
struct ibv_mr *verbs_register(struct verbs_fabric *f, struct verbs_domain *domain,
                              const void *memory, size_t length, int access, const char *where,
                              struct tw_error *err);
void verbs_deregister(struct verbs_fabric *f, struct ibv_mr *mr); /* NULL is fine */
/* Rings and buffers of a connection with `bulk_slots`. */
struct verbs_memory *verbs_memory_new(struct verbs_fabric *f, struct verbs_domain *domain,
                                      uint32_t bulk_slots, const char *where, struct tw_error *err);
void verbs_memory_put(struct verbs_fabric *f, struct verbs_memory *memory); /* NULL is fine */
/* The shared half's rings, which exist from ACCEPT on. */
enum tw_code verbs_chunks_register(struct verbs_conn *conn, struct tw_error *err);
enum tw_code verbs_region_open(struct tw_fabric *base, struct tw_region *region,
                               struct tw_error *err);
void verbs_region_close(struct tw_fabric *base, struct tw_region *region);
/* The slice of a region that holds `address`, with its rkey; false when there is none. */
bool verbs_region_slice(const struct tw_region *region, uint64_t address, uint64_t step,
                        struct verbs_slice *out);

/* ---- verbs_link.c ---------------------------------------------------------------------------- */

/* Slots and messages of a new connection. */
enum tw_code verbs_streams_open(struct verbs_conn *conn, uint32_t bulk_slots, struct tw_error *err);
struct verbs_link *verbs_link_new(struct verbs_conn *conn, struct tw_error *err);
/* Makes the queue pair of a queue whose id is known, with its receives. */
enum tw_code verbs_queue_create(struct verbs_queue *queue, struct tw_error *err);
/* Posts receives for the messages that the peer may send now. */
enum tw_code verbs_grant(struct verbs_conn *conn, enum tw_lane lane, struct tw_error *err);
/* Frees a link whose queue pairs are gone, with what it had of its connection. */
void verbs_link_end(struct verbs_link *link);
/* Stops all queue pairs without a word to the peer. */
void verbs_link_silence(struct verbs_link *link);
/* Notes that the link is of no use any more; poll does the rest. The first reason counts. */
void verbs_link_fail(struct verbs_link *link, enum tw_code code, const char *what, ...)
    __attribute__((format(printf, 3, 4)));
void verbs_link_fail_with(struct verbs_link *link, const struct tw_error *why);
bool verbs_lane_ready(const struct verbs_conn *conn, enum tw_lane lane);
/* On iWARP: a peer that has not answered our greeting is nudged from some time on; when that is due
 * again. */
void verbs_nudge_later(struct verbs_queue *queue);
void verbs_nudge(struct verbs_link *link, uint64_t now_ns);
uint64_t verbs_nudge_due(const struct verbs_link *link);
/* Detaches the link from its connection, to be freed by poll; with `words`, not before what it has
 * posted is out, or has had its time. */
void verbs_link_linger(struct verbs_conn *conn, bool words);
/* Frees those that have lingered long enough. */
void verbs_lingering_tick(struct verbs_fabric *f, uint64_t now_ns);
void verbs_wake(struct verbs_fabric *f); /* makes tw_fabric_fd() readable */

/* ---- verbs_slow.c ------------------------------------------------------------------------------
 */

/* Connects with the call's `priv` and `param`, on iWARP in a thread. An errno, 0 = it has begun. */
int verbs_connect_begin(struct verbs_queue *queue);
/* True once when the thread has ended: *number is an errno, or 0. */
bool verbs_connect_ended(struct verbs_queue *queue, int *number);
/* Ends the link and its queue pairs; on iWARP in a thread. It must not be touched any more. */
void verbs_link_free(struct verbs_link *link); /* NULL is fine */
/* Frees what threads have left over; with `wait` all of it. */
void verbs_retired_end(struct verbs_fabric *f, bool wait);

/* ---- verbs_cm.c ------------------------------------------------------------------------------ */

enum tw_code verbs_listen(struct tw_fabric *base, const char *address, struct tw_error *err);
/* Begins to bring up a queue pair to the peer. */
enum tw_code verbs_dial(struct verbs_queue *queue, struct tw_error *err);
void verbs_dial_bulk(struct verbs_conn *conn); /* all queue pairs of the bulk lane */
unsigned verbs_cm_events(struct verbs_fabric *f);
/* Calls in threads that have ended. */
void verbs_calls_take(struct verbs_conn *conn);
void verbs_reject(struct rdma_cm_id *id, const struct tw_error *why); /* and destroys it */
/* The first message of a queue pair has come. */
void verbs_greeted(struct verbs_queue *queue, uint32_t length);

/* ---- verbs_send.c ---------------------------------------------------------------------------- */

void verbs_flush(struct tw_conn *base, enum tw_lane lane);
enum tw_code verbs_post(struct verbs_queue *queue, struct ibv_send_wr *first, unsigned count,
                        struct tw_error *err);
/* Completes a work request: decides about signal and inline. */
void verbs_request_finish(struct verbs_queue *queue, struct ibv_send_wr *wr, bool signal);
uint32_t verbs_queue_room(const struct verbs_queue *queue);
/* Looks at what the peer says that it has consumed. */
void verbs_acks_take(struct verbs_conn *conn);

/* ---- verbs_recv.c ---------------------------------------------------------------------------- */

/* Numbers in work requests: what, which bulk queue, number. */
enum verbs_what { VERBS_WR_MESSAGE = 1, VERBS_WR_GREETING, VERBS_WR_SENT, VERBS_WR_READ };

static inline uint64_t verbs_wr_id(enum verbs_what what, const struct verbs_queue *queue,
                                   uint64_t number)
{
    return (uint64_t)what << 60 | (uint64_t)queue->index << 56 |
           (number & ((UINT64_C(1) << 56) - 1));
}

unsigned verbs_completion_events(struct verbs_fabric *f);
/* Polls a completion queue once and hands in messages, one of bulk at most. Events handled. */
unsigned verbs_serve(struct verbs_link *link, enum tw_lane lane);
/* Everything that has arrived. */
void verbs_serve_all(struct verbs_link *link);

/* ---- verbs_read.c ---------------------------------------------------------------------------- */

void verbs_reads_pump(struct verbs_conn *conn);
void verbs_read_completed(struct verbs_conn *conn, uint64_t number, enum ibv_wc_status status);
/* The link is lost: what was under way is to be done again. */
void verbs_reads_rewind(struct verbs_conn *conn);
void verbs_reads_free(struct verbs_conn *conn);
void verbs_reads_unmap(struct verbs_fabric *f, struct verbs_memory *memory);
/* Reports those that have ended; only inside poll. */
void verbs_reads_deliver(struct verbs_conn *conn);
/* A LOOKUP or REGION that is to leave; its size, 0 = none. */
uint32_t verbs_reads_frame(struct verbs_conn *conn, uint8_t out[TW_FRAME_HEADER]);
/* Takes a LOOKUP or REGION; false when the frame is another. */
bool verbs_reads_take(struct verbs_conn *conn, const struct tw_frame *frame);

#endif
