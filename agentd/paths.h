/* The fabrics of an agent and which of them leads to a peer. TCP is always there; RDMA verbs where
 * the configuration asks for it or, under `auto`, where a probe finds it usable. A peer is reached
 * by verbs when both sides have it, else by TCP. What was chosen is remembered with its reason: a
 * choice is never silent.
 *
 * Belongs to the data thread. */
#ifndef TOWLINE_AGENTD_PATHS_H
#define TOWLINE_AGENTD_PATHS_H

#include "agentd/config.h"
#include "base/error.h"
#include "fabric/fabric.h"
#include "pki/tls.h"

#include <stdbool.h>

#define TW_PATHS_MAX        16u  /* peers remembered; the least recent one goes */
#define TW_PATH_REASON_SIZE 160u /* with the final zero */

/* How a peer is, or was last, reached. */
struct tw_path {
    char peer[64];                    /* host name */
    char migration[64];               /* id of the last one that took this path */
    const char *fabric;               /* "tcp", "verbs" */
    char reason[TW_PATH_REASON_SIZE]; /* why this one */
};

struct tw_paths {
    struct tw_fabric *tcp;
    struct tw_fabric *verbs;           /* NULL = not in use here */
    char reason[TW_PATH_REASON_SIZE];  /* why it is in use or not */
    struct tw_path list[TW_PATHS_MAX]; /* most recent first */
    unsigned count;
};

/* Opens and listens. Fails when the configuration asks for verbs and no device is usable. TCP is
 * under TLS with `tls` (NULL: plain text, on loopback only), which has to outlive the paths. */
enum tw_code tw_paths_open(struct tw_paths *paths, const struct tw_agent_config *config,
                           struct tw_tls *tls, const struct tw_fabric_events *events, void *ctx,
                           struct tw_error *err);
void tw_paths_close(struct tw_paths *paths);

/* Handles what is ready, without waiting. */
void tw_paths_poll(struct tw_paths *paths);

/* The address that peers reach by verbs; "" = none. */
const char *tw_paths_verbs_address(const struct tw_paths *paths);

/* Decides how to reach a peer that can be reached at these addresses (verbs_address "" = only by
 * TCP), remembers it, and gives the fabric and the address to use on it. */
const struct tw_path *tw_paths_choose(struct tw_paths *paths, const char *peer,
                                      const char *migration, const char *tcp_address,
                                      const char *verbs_address, struct tw_fabric **fabric,
                                      const char **address);

/* Remembers how a peer has come to us. */
const struct tw_path *tw_paths_came(struct tw_paths *paths, const char *peer, const char *migration,
                                    const struct tw_conn *conn);

#endif
