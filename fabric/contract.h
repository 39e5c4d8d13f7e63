/* A world of two endpoints, a (server) and b (client), on any back end: what the contract tests
 * stand on. Only for tests. */
#ifndef TOWLINE_FABRIC_CONTRACT_H
#define TOWLINE_FABRIC_CONTRACT_H

#include "fabric/fabric.h"
#include "fabric/sim.h"
#include "fabric/verbs.h"

#define SIDE_LOG 64u /* chunks remembered */

struct side {
    struct tw_fabric *fabric;
    struct tw_conn *conn; /* the last one; NULL after on_down */
    unsigned accepts, ups, downs, reads;
    struct tw_error why; /* of the last on_down */
    enum tw_code refuse; /* what on_accept answers */
    enum tw_code spoil;  /* what on_chunk answers */
    bool close_in_chunk;
    bool echo;           /* send every chunk back on its lane */
    struct side *prompt; /* has this one send an urgent chunk when a bulk one arrives, once */
    uint64_t chunks[TW_LANES];
    uint64_t bytes[TW_LANES];
    uint64_t sums; /* of all payload bytes */
    struct {
        enum tw_lane lane;
        struct tw_chunk_header header;
        uint8_t first;
    } log[SIDE_LOG];
    unsigned logged;
    uint64_t cookie;
    enum tw_code read_code;
    struct tw_tls *tls;   /* NULL: plain */
    unsigned echoes_lost; /* no credit for an echo */
};

struct world {
    struct tw_sim *sim; /* NULL: tcp or verbs */
    /* Deadlines given to these fabrics are times of this clock: virtual with sim, the machine's
     * with verbs, and with tcp one that stands still while the process gets no processor. */
    const struct tw_clock *clock;
    struct tw_clock own_clock; /* tcp's */
    uint64_t own_ns, seen_ns;  /* what it shows, and what the machine's showed then */
    struct side a, b;
    bool a_is_deaf; /* tcp's stand-in for a cut: nobody polls a */
};

struct world *world_open(bool sim, const struct tw_fabric_config *config,
                         const struct tw_sim_config *sim_config);
void world_close(struct world *w);
/* Worlds opened from now on, unless they are simulated, speak TLS. */
void world_use_tls(void);
/* Worlds opened from now on, unless they are simulated, speak verbs: a listens on the address of
 * an RDMA device in TOWLINE_VERBS_ADDRESS, b connects from the one in TOWLINE_VERBS_SOURCE, which
 * may be missing. False: no address is
 * named, so there is no device to test on. `settings` NULL = defaults. */
bool world_use_verbs(const struct tw_verbs_config *settings);
const char *world_kind(void); /* "tcp" or "verbs": of worlds that are not simulated */
void world_step(struct world *w);
void world_cut(struct world *w);
void world_mend(struct world *w);

/* Connects b to a and waits until both are up. False: on_down came instead. */
bool world_connect(struct world *w);
struct tw_hello world_hello(void);

/* Steps until the condition holds; its value after at most `ms` of the world's time. */
#define WORLD_UNTIL(w, ms, condition)                                                              \
    __extension__({                                                                                \
        const uint64_t until_ = tw_now((w)->clock) + (ms)*TW_MS;                                   \
        while (!(condition) && tw_now((w)->clock) < until_)                                        \
            world_step(w);                                                                         \
        (bool)(condition);                                                                         \
    })

#endif
