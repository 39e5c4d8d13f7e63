/* Client and server under many threads, with a plain main so that the thread sanitizer can watch:
 * callers come and go, calls time out, the server goes away and comes back, both are closed while
 * calls run. */
#include "rpc/test_service.h"

#include "base/clock.h"
#include "base/log.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define CALLERS 12

struct caller {
    pthread_t thread;
    struct tw_rpc_client *client;
    unsigned index;
    unsigned ok, other;
};

static _Atomic bool stop;
static _Atomic unsigned answered;

static void *caller_main(void *arg)
{
    struct caller *c = arg;
    static const char *const names[] = {"web", "sleep:5", "fail:5", "sleep:40"};
    for (unsigned i = 0; !atomic_load(&stop); i++) {
        enum tw_code code = test_get(c->client, names[(c->index + i) % 4], i % 7 == 0 ? 20 : 1000,
                                     i % 2 ? TW_RPC_IDEMPOTENT : TW_RPC_ONCE, NULL, NULL);
        if (code == TW_OK) {
            c->ok++;
            atomic_fetch_add(&answered, 1);
        } else {
            c->other++;
        }
        if (code == TW_CANCELLED)
            break;
    }
    return NULL;
}

static int check(bool good, const char *what)
{
    if (!good)
        fprintf(stderr, "failed: %s\n", what);
    return good ? 0 : 1;
}

int main(void)
{
    struct test_service service = {0};
    struct caller callers[CALLERS];
    unsigned ok = 0, other = 0;
    char url[64];
    tw_log_configure("threads_test", TW_LOG_ERROR);
    struct tw_rpc_server *server = test_server(
        &(struct tw_rpc_server_config){.url = "tcp://127.0.0.1:0", .workers = 4}, &service);
    snprintf(url, sizeof url, "%s", tw_rpc_server_url(server));
    struct tw_rpc_client *client = test_client(url);
    for (unsigned i = 0; i < CALLERS; i++) {
        callers[i] = (struct caller){.client = client, .index = i};
        pthread_create(&callers[i].thread, NULL, caller_main, &callers[i]);
    }
    for (int round = 0; round < 3; round++) {
        test_sleep_ms(300);
        tw_rpc_server_close(server);
        server = test_server(&(struct tw_rpc_server_config){.url = url, .workers = 4}, &service);
    }
    /* A busy machine takes its time. */
    for (unsigned ms = 0; ms < 300 || (ms < 60000 && atomic_load(&answered) <= 100); ms += 10)
        test_sleep_ms(10);
    atomic_store(&stop, true);
    for (unsigned i = 0; i < CALLERS; i++) {
        pthread_join(callers[i].thread, NULL);
        ok += callers[i].ok;
        other += callers[i].other;
    }
    tw_rpc_client_close(client);
    tw_rpc_server_close(server);
    printf("%u calls answered, %u refused or late\n", ok, other);
    return check(ok > 100, "calls go through") | check(other > 0, "errors and late calls occur") |
           check(atomic_load(&service.running) == 0, "no handler is left");
}
