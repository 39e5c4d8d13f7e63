#include "rpc/http.h"

#include "rpc/bounded.h"
#include "rpc/transport.h"

#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <nng/supplemental/http/http.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLOSE_MS      5000
#define PORT_ATTEMPTS 16

struct tw_http_server {
    struct tw_http_pages pages;
    nng_http_server *http;
    char *url;
};

/* ---- Pages: run on nng's threads ------------------------------------------------------------ */

struct page {
    FILE *out;
    char *text;
    size_t size;
};

static bool page_begin(struct page *page)
{
    *page = (struct page){0};
    page->out = open_memstream(&page->text, &page->size);
    return page->out != NULL;
}

static int page_response(struct page *page, uint16_t status, const char *type, nng_http_res **out)
{
    nng_http_res *response;
    int failed = nng_http_res_alloc(&response);
    if (failed)
        return failed;
    if ((failed = nng_http_res_set_status(response, status)) ||
        (failed = nng_http_res_set_header(response, "Content-Type", type)) ||
        (failed = nng_http_res_set_header(response, "Cache-Control", "no-store")) ||
        (failed = nng_http_res_copy_data(response, page->text, page->size))) {
        nng_http_res_free(response);
        return failed;
    }
    *out = response;
    return 0;
}

static void page_finish(struct page *page, uint16_t status, const char *type, nng_aio *aio)
{
    nng_http_res *response = NULL;
    int failed = fclose(page->out) == 0 ? page_response(page, status, type, &response) : NNG_ENOMEM;
    free(page->text);
    if (!failed)
        nng_aio_set_output(aio, 0, response);
    nng_aio_finish(aio, failed);
}

static struct tw_http_server *server_of(nng_aio *aio)
{
    return nng_http_handler_get_data(nng_aio_get_input(aio, 1));
}

static void on_metrics(nng_aio *aio)
{
    struct tw_http_server *server = server_of(aio);
    struct page page;
    if (!page_begin(&page)) {
        nng_aio_finish(aio, NNG_ENOMEM);
        return;
    }
    if (server->pages.metrics)
        server->pages.metrics(server->pages.ctx, page.out);
    page_finish(&page, 200, "text/plain; version=0.0.4; charset=utf-8", aio);
}

static void on_health(nng_aio *aio)
{
    struct page page;
    if (!page_begin(&page)) {
        nng_aio_finish(aio, NNG_ENOMEM);
        return;
    }
    fputs("ok\n", page.out);
    page_finish(&page, 200, "text/plain; charset=utf-8", aio);
}

static void on_ready(nng_aio *aio)
{
    struct tw_http_server *server = server_of(aio);
    struct page page;
    if (!page_begin(&page)) {
        nng_aio_finish(aio, NNG_ENOMEM);
        return;
    }
    bool ready = !server->pages.ready || server->pages.ready(server->pages.ctx, page.out);
    fputs(ready ? "ready\n" : "not ready\n", page.out);
    page_finish(&page, ready ? 200 : 503, "text/plain; charset=utf-8", aio);
}

/* ---- Server --------------------------------------------------------------------------------- */

static int route_add(struct tw_http_server *server, const char *path, void (*page)(nng_aio *))
{
    nng_http_handler *handler;
    int failed = nng_http_handler_alloc(&handler, path, page);
    if (failed)
        return failed;
    if ((failed = nng_http_handler_collect_body(handler, true, 0)) ||
        (failed = nng_http_handler_set_data(handler, server, NULL)) ||
        (failed = nng_http_server_add_handler(server->http, handler)))
        nng_http_handler_free(handler);
    return failed;
}

static void http_teardown(void *arg)
{
    struct tw_http_server *server = arg;
    nng_http_server_stop(server->http);
    nng_http_server_release(server->http);
}

static int http_start(struct tw_http_server *server, const nng_url *url)
{
    int failed = nng_http_server_hold(&server->http, url);
    if (failed)
        return failed;
    if ((failed = route_add(server, "/metrics", on_metrics)) ||
        (failed = route_add(server, "/healthz", on_health)) ||
        (failed = route_add(server, "/readyz", on_ready)) ||
        (failed = nng_http_server_start(server->http))) {
        nng_http_server_release(server->http);
        server->http = NULL;
    }
    return failed;
}

/* A port of `address` that was free a moment ago; 0 = none. */
static uint16_t port_find(const char *address)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    socklen_t size = sizeof in;
    int fd = inet_pton(AF_INET, address, &in.sin_addr) == 1
                 ? socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)
                 : -1;
    if (fd < 0)
        return 0;
    bool found = bind(fd, (struct sockaddr *)&in, sizeof in) == 0 &&
                 getsockname(fd, (struct sockaddr *)&in, &size) == 0;
    close(fd);
    return found ? ntohs(in.sin_port) : 0;
}

/* nng shares one HTTP server among all users of an address, and takes every ":0" for the same
 * address: so a free port is chosen here, again when somebody else was quicker. */
static int http_start_any_port(struct tw_http_server *server, const nng_url *given)
{
    int failed = NNG_EADDRINVAL;
    for (int i = 0; i < PORT_ATTEMPTS; i++) {
        nng_url *url;
        uint16_t port = port_find(given->u_hostname);
        free(server->url);
        server->url = NULL;
        if (port == 0)
            return NNG_EADDRINVAL;
        if (asprintf(&server->url, "http://%s:%u", given->u_hostname, port) < 0) {
            server->url = NULL;
            return NNG_ENOMEM;
        }
        failed = nng_url_parse(&url, server->url);
        if (failed)
            return failed;
        failed = http_start(server, url);
        nng_url_free(url);
        if (failed != NNG_EADDRINUSE)
            return failed;
    }
    return failed;
}

enum tw_code tw_http_server_open(const char *url, const struct tw_http_pages *pages,
                                 struct tw_http_server **server, struct tw_error *err)
{
    nng_url *parsed = NULL;
    *server = NULL;
    struct tw_http_server *s = calloc(1, sizeof *s);
    if (!s || !(s->url = strdup(url))) {
        free(s);
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, url, NULL, NULL, "out of memory");
    }
    s->pages = *pages;
    int failed = nng_url_parse(&parsed, url);
    if (!failed && strcmp(parsed->u_scheme, "http") != 0)
        failed = NNG_EADDRINVAL;
    if (!failed)
        failed = strcmp(parsed->u_port, "0") == 0 ? http_start_any_port(s, parsed)
                                                  : http_start(s, parsed);
    if (parsed)
        nng_url_free(parsed);
    if (failed) {
        free(s->url);
        free(s);
        return tw_fail_nng(err, failed, url, "cannot serve HTTP");
    }
    *server = s;
    return TW_OK;
}

const char *tw_http_server_url(const struct tw_http_server *server)
{
    return server->url;
}

void tw_http_server_close(struct tw_http_server *server)
{
    if (!server)
        return;
    if (tw_bounded_run(http_teardown, server, CLOSE_MS)) {
        free(server->url);
        free(server);
    } else { /* nng still uses it: better lost memory than freed memory */
        tw_log(TW_LOG_ERROR, "rpc.http", "not closed in time", "url=%s", server->url);
    }
}
