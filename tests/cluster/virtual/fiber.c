#include "tests/cluster/virtual/fiber.h"

#include "fabric/sim.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#define STACK_BYTES ((size_t)1 << 20)
#else
#define STACK_BYTES ((size_t)256 << 10)
#endif
#define FIBERS_MAX       1024u
#define TIMERS_MAX       4096u
#define LINK_BYTES_PER_S (UINT64_C(64) << 20)
#define TURN_NS          (10 * TW_US) /* a poller's turn takes that long at least */

enum state { FREE, READY, WAITING, ENDED };

struct vt_fiber {
    ucontext_t context; /* how it begins; with sanitizers, also how it goes on */
    jmp_buf jump;
    bool begun;
    void *stack;
    enum state state;
    bool joined; /* nobody will ask for its result */
    struct vt_node *node;
    void *(*fn)(void *);
    void *arg, *result;
    const void *on;
    uint64_t until_ns;
    bool timed_out;
};

struct timer {
    uint64_t at_ns, birth;
    void (*fn)(void *);
    void *ctx;
};

struct vt_time vt_time;

static struct vt_fiber fibers[FIBERS_MAX]; /* stacks are kept for the next fiber, and world */
static unsigned used;                      /* of them, those that were ever made */
static struct timer timers[TIMERS_MAX];    /* a heap */
static unsigned timer_count;
static uint64_t births;
static struct vt_fiber *current;
static ucontext_t scheduler;
#ifdef __SANITIZE_ADDRESS__
static const void *scheduler_stack;
static size_t scheduler_size;
#else
static jmp_buf scheduler_jump;
#endif

uint64_t vt_now(void)
{
    return vt_time.sim ? tw_now(tw_sim_clock(vt_time.sim)) : 0;
}

struct vt_node *vt_here(void)
{
    return current ? current->node : NULL;
}

void vt_enter(struct vt_node *node)
{
    current->node = node;
}

static void broken(const char *what)
{
    fprintf(stderr, "simulate: %s\n", what);
    abort();
}

/* ---- Switching ------------------------------------------------------------------------------- */

#ifdef __SANITIZE_ADDRESS__
static void to_scheduler(void)
{
    struct vt_fiber *me = current;
    void *save = NULL;
    __sanitizer_start_switch_fiber(me->state == ENDED ? NULL : &save, scheduler_stack,
                                   scheduler_size);
    swapcontext(&me->context, &scheduler);
    __sanitizer_finish_switch_fiber(save, &scheduler_stack, &scheduler_size);
}

static void to_fiber(struct vt_fiber *f)
{
    void *save = NULL;
    __sanitizer_start_switch_fiber(&save, f->stack, STACK_BYTES);
    swapcontext(&scheduler, &f->context);
    __sanitizer_finish_switch_fiber(save, NULL, NULL);
}
#else
/* swapcontext() asks the kernel about signals each time, so only a fiber's begin goes that way. */
static void to_scheduler(void)
{
    if (_setjmp(current->jump) == 0)
        _longjmp(scheduler_jump, 1);
}

static void to_fiber(struct vt_fiber *f)
{
    if (_setjmp(scheduler_jump) != 0)
        return;
    if (f->begun)
        _longjmp(f->jump, 1);
    f->begun = true;
    swapcontext(&scheduler, &f->context);
}
#endif

static void begin(void)
{
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(NULL, &scheduler_stack, &scheduler_size);
#endif
    current->result = current->fn(current->arg);
    vt_exit();
}

static void resume(struct vt_fiber *f)
{
    current = f;
    vt_time.steps++;
    to_fiber(f);
    f = current;
    current = NULL;
    if (f->state == ENDED && f->joined)
        f->state = FREE;
}

void vt_exit(void)
{
    current->state = ENDED;
    vt_wake(current, FIBERS_MAX);
    to_scheduler();
    abort(); /* an ended fiber does not come back */
}

/* ---- Life ------------------------------------------------------------------------------------ */

static struct vt_fiber *fiber_new(void)
{
    unsigned i = 0;
    while (i < used && fibers[i].state != FREE)
        i++;
    if (i == FIBERS_MAX)
        broken("too many fibers");
    struct vt_fiber *f = &fibers[i];
    if (i == used) {
        used++;
        f->stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
        if (f->stack == MAP_FAILED)
            broken("no memory for a stack");
    }
    return f;
}

static void context_make(ucontext_t *context, void *stack)
{
    getcontext(context);
    context->uc_stack.ss_sp = stack;
    context->uc_stack.ss_size = STACK_BYTES;
    makecontext(context, begin, 0);
}

struct vt_fiber *vt_spawn(struct vt_node *node, void *(*fn)(void *), void *arg)
{
    struct vt_fiber *f = fiber_new();
    void *stack = f->stack;
    *f = (struct vt_fiber){.stack = stack, .state = READY, .node = node, .fn = fn, .arg = arg};
    context_make(&f->context, stack);
    return f;
}

void vt_spawn_free(struct vt_node *node, void *(*fn)(void *), void *arg)
{
    vt_spawn(node, fn, arg)->joined = true;
}

void *vt_join(struct vt_fiber *f)
{
    while (f->state != ENDED)
        vt_wait(f, TW_NEVER);
    f->state = FREE;
    return f->result;
}

void vt_open(uint64_t seed)
{
    vt_time = (struct vt_time){.random = {seed}};
    const struct tw_sim_config sim = {
        .seed = seed, .latency_max_ns = 200 * TW_US, .bandwidth_bytes_per_s = LINK_BYTES_PER_S};
    vt_time.sim = tw_sim_open(&sim);
    timer_count = 0;
    births = 0;
    if (!vt_time.sim)
        broken("no memory for a network");
}

void vt_close(void)
{
    for (unsigned i = 0; i < used; i++)
        fibers[i].state = FREE;
    tw_sim_close(vt_time.sim);
    vt_time.sim = NULL;
}

/* ---- Waiting --------------------------------------------------------------------------------- */

bool vt_wait(const void *on, uint64_t until_ns)
{
    struct vt_fiber *me = current;
    if (!me)
        broken("the world itself cannot wait");
    me->on = on;
    me->until_ns = until_ns;
    me->timed_out = false;
    me->state = me->node && me->node->dead ? READY : WAITING;
    to_scheduler();
    return !me->timed_out;
}

void vt_wake(const void *on, unsigned most)
{
    for (unsigned i = 0; i < used && most && on; i++) {
        if (fibers[i].state != WAITING || fibers[i].on != on)
            continue;
        fibers[i].state = READY;
        most--;
    }
}

void vt_rouse(struct vt_node *node)
{
    for (unsigned i = 0; i < used; i++)
        if (fibers[i].state == WAITING && fibers[i].node == node)
            fibers[i].state = READY;
}

void vt_poke(struct vt_node *node)
{
    struct vt_fiber *f = node->poller;
    node->poked = true;
    /* It takes a turn's time at least, or a loop that is always due would stop the clock. */
    if (f && node->polling && f->state == WAITING && f->until_ns > vt_now() + TURN_NS)
        f->until_ns = vt_now() + TURN_NS;
}

/* ---- Things that happen ---------------------------------------------------------------------- */

static bool earlier(const struct timer *a, const struct timer *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->birth < b->birth;
}

void vt_at(uint64_t at_ns, void (*fn)(void *), void *ctx)
{
    if (timer_count == TIMERS_MAX)
        broken("too many timers");
    unsigned i = timer_count++;
    struct timer t = {at_ns, births++, fn, ctx};
    for (; i > 0 && earlier(&t, &timers[(i - 1) / 2]); i = (i - 1) / 2)
        timers[i] = timers[(i - 1) / 2];
    timers[i] = t;
}

static struct timer timer_take(void)
{
    struct timer first = timers[0], last = timers[--timer_count];
    unsigned i = 0;
    for (unsigned down; (down = 2 * i + 1) < timer_count; i = down) {
        if (down + 1 < timer_count && earlier(&timers[down + 1], &timers[down]))
            down++;
        if (!earlier(&timers[down], &last))
            break;
        timers[i] = timers[down];
    }
    timers[i] = last;
    return first;
}

static void look_at_pollers(void)
{
    for (unsigned i = 0; i < used; i++) {
        const struct vt_fiber *f = &fibers[i];
        if (f->state == WAITING && f->node && f->node->poller == f && f->node->fabric &&
            tw_sim_due(f->node->fabric) <= vt_now())
            vt_poke(f->node);
    }
}

/* Time goes on to the next thing that happens. False: nothing ever will. */
static bool go_on(uint64_t until_ns)
{
    look_at_pollers();
    uint64_t now = vt_now(), next = timer_count ? timers[0].at_ns : TW_NEVER;
    for (unsigned i = 0; i < used; i++)
        if (fibers[i].state == WAITING && fibers[i].until_ns < next)
            next = fibers[i].until_ns;
    if (next > until_ns)
        next = until_ns;
    if (next > now)
        tw_sim_advance(vt_time.sim, next - now);
    now = vt_now();
    while (timer_count && timers[0].at_ns <= now) {
        struct timer t = timer_take();
        t.fn(t.ctx);
    }
    for (unsigned i = 0; i < used; i++) {
        if (fibers[i].state != WAITING || fibers[i].until_ns > now)
            continue;
        fibers[i].timed_out = true;
        fibers[i].state = READY;
    }
    return now < until_ns;
}

unsigned vt_fibers_alive(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < used; i++)
        n += fibers[i].state == READY || fibers[i].state == WAITING;
    return n;
}

static struct vt_fiber *choose(void)
{
    struct vt_fiber *ready[FIBERS_MAX];
    unsigned n = 0;
    for (unsigned i = 0; i < used; i++)
        if (fibers[i].state == READY)
            ready[n++] = &fibers[i];
    return n == 0 ? NULL : ready[n == 1 ? 0 : vt_below(n)];
}

bool vt_run(bool (*done)(void *ctx), void *ctx, uint64_t until_ns)
{
    while (!done(ctx)) {
        struct vt_fiber *f = choose();
        if (f)
            resume(f);
        else if (!go_on(until_ns))
            return done(ctx);
    }
    return true;
}
