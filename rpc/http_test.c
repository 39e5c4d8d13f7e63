#include "rpc/http.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void metrics(void *ctx, FILE *out)
{
    fprintf(out, "towline_things %d\n", *(int *)ctx);
}

static bool ready(void *ctx, FILE *out)
{
    fprintf(out, "things %d\n", *(int *)ctx);
    return *(int *)ctx == 1;
}

static int open_port(const char *url)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    const char *colon = strrchr(url, ':');
    in.sin_port = htons((uint16_t)atoi(colon + 1));
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&in, sizeof in), 0);
    return fd;
}

/* Status of the answer to `request`, the rest of it in `text`. */
static int ask(const char *url, const char *request, char *text, size_t size)
{
    int fd = open_port(url), status = 0;
    size_t length = 0;
    cr_assert_eq(write(fd, request, strlen(request)), (ssize_t)strlen(request));
    struct pollfd p = {.fd = fd, .events = POLLIN};
    while (length < size - 1 && poll(&p, 1, 20000) == 1) {
        ssize_t n = read(fd, text + length, size - 1 - length);
        if (n <= 0)
            break;
        length += (size_t)n;
    }
    close(fd);
    text[length] = 0;
    cr_assert_eq(sscanf(text, "HTTP/1.1 %d", &status), 1, "%s", text);
    return status;
}

static int get(const char *url, const char *path, char *text, size_t size)
{
    char request[256];
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
             path);
    return ask(url, request, text, size);
}

static struct tw_http_server *server_open(int *things)
{
    struct tw_http_server *server;
    struct tw_http_pages pages = {metrics, ready, things};
    struct tw_error err;
    char text[512];
    cr_assert_eq(tw_http_server_open("http://127.0.0.1:0", &pages, &server, &err), TW_OK, "%s",
                 tw_error_text(&err, text, sizeof text));
    return server;
}

Test(http, pages)
{
    int things = 1;
    char text[4096];
    struct tw_http_server *server = server_open(&things);
    const char *url = tw_http_server_url(server);
    cr_assert_eq(get(url, "/metrics", text, sizeof text), 200);
    cr_assert(strstr(text, "text/plain; version=0.0.4"));
    cr_assert(strstr(text, "\r\n\r\ntowline_things 1\n"));
    cr_assert_eq(get(url, "/healthz", text, sizeof text), 200);
    cr_assert_eq(get(url, "/readyz", text, sizeof text), 200);
    cr_assert(strstr(text, "things 1\nready\n"));
    things = 2;
    cr_assert_eq(get(url, "/readyz", text, sizeof text), 503);
    cr_assert(strstr(text, "things 2\nnot ready\n"));
    tw_http_server_close(server);
}

Test(http, other_paths_and_methods)
{
    int things = 1;
    char text[4096];
    struct tw_http_server *server = server_open(&things);
    const char *url = tw_http_server_url(server);
    cr_assert_eq(get(url, "/", text, sizeof text), 404);
    cr_assert_eq(get(url, "/metrics/x", text, sizeof text), 404);
    cr_assert_eq(get(url, "/../etc/passwd", text, sizeof text), 404);
    cr_assert_eq(ask(url,
                     "POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                     "Content-Length: 2\r\n\r\nhi",
                     text, sizeof text),
                 405);
    tw_http_server_close(server);
}

Test(http, two_servers_on_any_port_are_two)
{
    int one = 1, two = 2;
    char text[4096];
    struct tw_http_server *first = server_open(&one), *second = server_open(&two);
    cr_assert_str_neq(tw_http_server_url(first), tw_http_server_url(second));
    get(tw_http_server_url(first), "/metrics", text, sizeof text);
    cr_assert(strstr(text, "things 1\n"));
    get(tw_http_server_url(second), "/metrics", text, sizeof text);
    cr_assert(strstr(text, "things 2\n"));
    tw_http_server_close(first);
    tw_http_server_close(second);
}

Test(http, closes_with_an_idle_connection_open)
{
    int things = 1;
    struct tw_http_server *server = server_open(&things);
    int fd = open_port(tw_http_server_url(server));
    cr_assert_eq(write(fd, "GET /met", 8), 8);
    tw_http_server_close(server);
    close(fd);
}

Test(http, unusable_addresses)
{
    struct tw_http_pages pages = {metrics, ready, NULL};
    struct tw_http_server *server;
    struct tw_error err;
    cr_assert_neq(tw_http_server_open("tcp://127.0.0.1:0", &pages, &server, &err), TW_OK);
    cr_assert_neq(tw_http_server_open("http://192.0.2.1:81", &pages, &server, &err), TW_OK);
    cr_assert_neq(tw_http_server_open("nonsense", &pages, &server, &err), TW_OK);
    cr_assert_null(server);
}
