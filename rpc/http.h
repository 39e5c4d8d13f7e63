/* A small HTTP server (nng's own) for /metrics, /healthz, /readyz, shared by agent and controller.
 * Handlers run on nng's threads and must be thread-safe. */
#ifndef TOWLINE_RPC_HTTP_H
#define TOWLINE_RPC_HTTP_H

#include "base/error.h"

#include <stdbool.h>
#include <stdio.h>

struct tw_http_server;

struct tw_http_pages {
    void (*metrics)(void *ctx, FILE *out); /* Prometheus text */
    bool (*ready)(void *ctx, FILE *out);   /* a line for each item; false = 503 */
    void *ctx;
};

/* url: "http://127.0.0.1:0"; the real one is in tw_http_server_url. */
enum tw_code tw_http_server_open(const char *url, const struct tw_http_pages *pages,
                                 struct tw_http_server **server, struct tw_error *err);
const char *tw_http_server_url(const struct tw_http_server *server);
void tw_http_server_close(struct tw_http_server *server);

#endif
