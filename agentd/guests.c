#include "agentd/guests.h"

#include "agentd/agent.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define EVERY TW_SEC
#define LEASE (10 * TW_SEC)

struct tw_guests {
    bool always;
    _Atomic uint64_t wanted_ns; /* until then */
    pthread_mutex_t lock;       /* of what follows */
    struct tw_guest_shown shown[TW_GUESTS_SHOWN_MAX];
    size_t count;
};

struct tw_guests *tw_guests_open(bool always)
{
    struct tw_guests *g = calloc(1, sizeof *g);
    if (g) {
        g->always = always;
        pthread_mutex_init(&g->lock, NULL);
    }
    return g;
}

void tw_guests_close(struct tw_guests *guests)
{
    if (!guests)
        return;
    pthread_mutex_destroy(&guests->lock);
    free(guests);
}

size_t tw_guests_look(struct tw_guests *guests, struct tw_guest_shown *out, size_t max)
{
    atomic_store(&guests->wanted_ns, tw_after(tw_now(&tw_monotonic), LEASE));
    pthread_mutex_lock(&guests->lock);
    const size_t n = guests->count < max ? guests->count : max;
    memcpy(out, guests->shown, n * sizeof *out);
    pthread_mutex_unlock(&guests->lock);
    return n;
}

/* A machine that only receives has no device yet. */
static const struct tw_host *host_of(const struct tw_vm *vm)
{
    const struct tw_host *host = vm->qemu ? tw_qemu_host(vm->qemu) : NULL;
    return host && host->device ? host : NULL;
}

void tw_guests_forget(struct tw_vm *vm)
{
    tw_guest_meter_close(vm->meter, host_of(vm));
    vm->meter = NULL;
}

static void show(struct tw_agent *a)
{
    struct tw_guests *g = a->guests;
    pthread_mutex_lock(&g->lock);
    g->count = 0;
    for (const struct tw_vm *vm = a->vms; vm && g->count < TW_GUESTS_SHOWN_MAX; vm = vm->next) {
        if (!vm->meter)
            continue;
        struct tw_guest_shown *s = &g->shown[g->count++];
        snprintf(s->name, sizeof s->name, "%s", vm->record->spec->name);
        s->pid = (uint64_t)tw_qemu_pid(vm->qemu);
        tw_guest_meter_get(vm->meter, &s->figures);
    }
    pthread_mutex_unlock(&g->lock);
}

uint64_t tw_guests_step(struct tw_agent *agent)
{
    const uint64_t now = tw_now(&tw_monotonic);
    const bool wanted = agent->guests->always || now < atomic_load(&agent->guests->wanted_ns);
    uint64_t next = TW_NEVER;
    bool any = false;
    for (struct tw_vm *vm = agent->vms; vm; vm = vm->next) {
        const struct tw_host *host = wanted ? host_of(vm) : NULL;
        any |= vm->meter || host;
        if (!host) {
            tw_guests_forget(vm);
            continue;
        }
        if (!vm->meter)
            vm->meter = tw_guest_meter_open(&tw_monotonic, EVERY);
        const uint64_t due = vm->meter ? tw_guest_meter_step(vm->meter, host) : TW_NEVER;
        next = due < next ? due : next;
    }
    /* Nobody else writes the count. */
    if (any || agent->guests->count)
        show(agent);
    return next;
}
