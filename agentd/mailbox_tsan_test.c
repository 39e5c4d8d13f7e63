/* Many callers, one data thread, shut in the middle: run under the thread sanitizer, where
 * Criterion cannot start. Exit status 0 = passed. */
#include "agentd/mailbox.h"

#include "base/clock.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>

#define CALLERS 8
#define CALLS   500

static struct tw_mailbox *mailbox;
static _Atomic bool stop;
static _Atomic unsigned ok, refused, wrong;
static unsigned long ran; /* data thread only */

static enum tw_code add(void *owner, void *arg, struct tw_error *err)
{
    (void)err;
    ran++;
    *(unsigned *)owner += 1;
    *(unsigned *)arg += 1;
    return TW_OK;
}

static void *caller(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < CALLS; i++) {
        unsigned mine = 0;
        struct tw_error err;
        enum tw_code code =
            tw_mailbox_call(mailbox, add, &mine, tw_after(tw_now(&tw_monotonic), 2 * TW_SEC), &err);
        if (code == TW_OK && mine == 1)
            ok++;
        else if (code != TW_OK && mine == 0)
            refused++;
        else
            wrong++;
    }
    return NULL;
}

static void *data_thread(void *arg)
{
    while (!atomic_load(&stop)) {
        struct pollfd p = {.fd = tw_mailbox_fd(mailbox), .events = POLLIN};
        poll(&p, 1, 50);
        tw_mailbox_run(mailbox, arg);
        if (ran > CALLERS * CALLS / 2)
            tw_mailbox_shut(mailbox);
    }
    return NULL;
}

int main(void)
{
    pthread_t callers[CALLERS], data;
    unsigned total = 0;
    mailbox = tw_mailbox_open(4);
    pthread_create(&data, NULL, data_thread, &total);
    for (unsigned i = 0; i < CALLERS; i++)
        pthread_create(&callers[i], NULL, caller, NULL);
    for (unsigned i = 0; i < CALLERS; i++)
        pthread_join(callers[i], NULL);
    atomic_store(&stop, true);
    pthread_join(data, NULL);
    tw_mailbox_close(mailbox);
    printf("ok %u refused %u wrong %u ran %u\n", ok, refused, wrong, total);
    return wrong == 0 && ok == total && ok + refused == CALLERS * CALLS ? 0 : 1;
}
