#include "tests/cluster/virtual/guest.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define TICK_BUSY_NS   TW_MS
#define TICK_IDLE_NS   (50 * TW_MS)
#define AT_ONCE        64u
#define UNSEEN_PERCENT 5u
#define FIRST_PID      1000000 /* beyond those of the system that runs this */

struct vt_machine *vt_machines;
static struct vt_life lives[VT_VMS_MAX];
static unsigned life_count;
static pid_t next_pid;

/* ---- Lives ----------------------------------------------------------------------------------- */

static uint8_t *memory_new(uint64_t bytes)
{
    uint8_t *m = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m == MAP_FAILED)
        abort();
    return m;
}

static struct vt_life *life_find(const char *vm)
{
    for (unsigned i = 0; i < life_count; i++)
        if (strcmp(lives[i].vm, vm) == 0)
            return &lives[i];
    return NULL;
}

struct vt_life *vt_life_of(const char *vm, uint64_t bytes)
{
    struct vt_life *l = life_find(vm);
    if (l)
        return l;
    l = &lives[life_count++];
    *l = (struct vt_life){
        .image = memory_new(bytes), .bytes = bytes, .pages = bytes / TW_PAGE_SIZE, .mirror = -1};
    /* No guest stores beyond; that nobody else does is looked at in the end. */
    l->span = (vt_world.scenario->data_pages * 3 / 2 + 1) * TW_PAGE_SIZE;
    strncpy(l->vm, vm, sizeof l->vm - 1);
    return l;
}

/* The agent that was asked to keep what follows is still the same. */
static bool mirror_lives(const struct vt_life *l)
{
    const struct vt_node *n = l->mirror >= 0 ? &vt_world.nodes[l->mirror] : NULL;
    return n && !n->dead && !n->stopping && n->starts == l->mirror_starts;
}

/* Nobody is to blame if it ends. */
static bool may_be_lost(const struct vt_life *l)
{
    return l->killed || (l->on_mirror && !mirror_lives(l));
}

/* It is born again as long as nobody was told that it runs. */
static void life_begin(struct vt_life *l, struct vt_machine *m)
{
    if (l->acknowledged && !l->deleting && !may_be_lost(l))
        vt_problem("%s, which was acknowledged, begins from nothing on %s", l->vm,
                   vt_world.nodes[m->host].name);
    memset(l->image, 0, l->span);
    l->operations = 0;
    l->killed = l->on_mirror = false;
    struct tw_random r = {vt_world.scenario->seed};
    for (uint64_t p = 0; p < vt_world.scenario->data_pages; p++) {
        m->data[p] = tw_random_below(&r, 4) != 0;
        for (uint64_t i = 0; m->data[p] && i < TW_PAGE_SIZE; i += TW_LINE_SIZE) {
            uint64_t value = tw_random_below(&r, 3) ? tw_random_next(&r) : 0;
            memcpy(l->image + p * TW_PAGE_SIZE + i, &value, sizeof value);
        }
        memcpy(m->memory + p * TW_PAGE_SIZE, l->image + p * TW_PAGE_SIZE, TW_PAGE_SIZE);
    }
}

/* ---- Machines -------------------------------------------------------------------------------- */

struct vt_machine *vt_machine_by_pid(pid_t pid)
{
    struct vt_machine *m = vt_machines;
    while (m && m->pid != pid)
        m = m->next;
    return m;
}

static bool whole(const struct vt_machine *m)
{
    return memcmp(m->memory, m->life->image, m->life->span) == 0;
}

/* Its CPUs stand where the VM stands. */
static bool current(const struct vt_machine *m)
{
    return m->alive && m->loaded && m->operations == m->life->operations;
}

static void tick(void *ctx);

static void tick_later(struct vt_machine *m)
{
    bool busy = m->guarded || vt_now() < m->synced_ns + 100 * TW_MS;
    if (m->ticking)
        return;
    m->ticking = true;
    vt_at(vt_now() + (busy ? TICK_BUSY_NS : TICK_IDLE_NS), tick, m);
}

static void run_now(struct vt_machine *m)
{
    m->running = true;
    m->ran_ns = vt_now();
    m->life->runner = m;
    tick_later(m);
}

/* Its host was declared lost, and nobody had heard whether the VM had run there: it goes on as it
 * stood when it stopped. */
static void go_back(struct vt_machine *m)
{
    struct vt_life *l = m->life;
    if (!l->with_host || l->runner || !m->loaded || m->guarded || m->operations >= l->operations)
        return;
    vt_say("%s goes back from operation %llu to %llu", l->vm, (unsigned long long)l->operations,
           (unsigned long long)m->operations);
    l->operations = m->operations;
    memcpy(l->image, m->memory, l->span);
    l->follows = l->on_mirror = false;
}

/* May this copy run? The rules of the house, at the moment that counts. */
void vt_machine_continue(struct vt_machine *m)
{
    struct vt_life *l = m->life;
    const char *host = vt_world.nodes[m->host].name;
    if (m->running)
        return;
    go_back(m);
    if (l->runner && l->runner != m && l->runner->alive && l->runner->running)
        vt_problem("two copies of %s run: on %s and %s", l->vm,
                   vt_world.nodes[l->runner->host].name, host);
    if (!m->loaded || m->operations != l->operations)
        vt_problem("%s is continued on %s at operation %llu of %llu", l->vm, host,
                   (unsigned long long)m->operations, (unsigned long long)l->operations);
    if (!vt_owns_on_disk(m->host, l->vm))
        vt_problem("%s is continued on %s, whose record does not own it", l->vm, host);
    vt_check_owners(l->vm);
    if (!m->guarded && !whole(m))
        vt_problem("%s is continued on %s with another memory", l->vm, host);
    if (!m->guarded)
        vt_guest_whole(l);
    run_now(m);
}

struct vt_machine *vt_machine_new(struct vt_life *life, const char *run_dir, bool incoming)
{
    struct vt_machine *m = calloc(1, sizeof *m);
    m->life = life;
    m->host = vt_index(vt_here());
    m->pid = next_pid++;
    m->alive = true;
    m->incoming = incoming;
    m->loaded = !incoming;
    m->memory = memory_new(life->bytes);
    m->marks = calloc(life->pages, sizeof *m->marks);
    m->data = calloc(life->pages, sizeof *m->data);
    m->opened = calloc(life->pages, sizeof *m->opened);
    vt_pace_begin(m);
    m->up_ns = vt_now() + vt_below(20 * TW_MS);
    strncpy(m->run_dir, run_dir, sizeof m->run_dir - 1);
    m->next = vt_machines;
    vt_machines = m;
    if (!incoming) {
        life_begin(life, m);
        if (life->runner && life->runner->alive && life->runner->running)
            vt_problem("a second %s is started", life->vm);
        run_now(m);
    }
    return m;
}

void vt_machine_end(struct vt_machine *m, const char *why)
{
    struct vt_life *l = m->life;
    bool was = current(m), other = false;
    m->alive = m->running = false;
    vt_say("the copy of %s on %s ends: %s", l->vm, vt_world.nodes[m->host].name, why);
    if (l->runner == m)
        l->runner = NULL;
    for (struct vt_machine *o = vt_machines; o; o = o->next)
        other |= o != m && o->life == l && current(o) && (whole(o) || l->on_mirror);
    if (was && !other && l->acknowledged && !l->deleting && !may_be_lost(l))
        vt_problem("the last whole copy of %s was ended on %s: %s", l->vm,
                   vt_world.nodes[m->host].name, why);
}

/* ---- Mirrors --------------------------------------------------------------------------------- */

void vt_guest_mirrored(const char *vm, const char *migration, const struct vt_node *node)
{
    struct vt_life *l = life_find(vm);
    if (!l)
        return;
    l->mirror = (int)vt_index(node);
    l->mirror_starts = node->starts;
    snprintf(l->mirror_migration, sizeof l->mirror_migration, "%s", migration);
}

/* Where somebody insists on it, no source gives its VM up before. */
static bool mirror_has_all(const struct vt_life *l)
{
    return mirror_lives(l) && (vt_world.scenario->mirror_named ||
                               vt_mirror_complete((unsigned)l->mirror, l->mirror_migration));
}

/* The copy of the source goes, which has given the VM up: from now on the rest is at the mirror. */
static bool mirror_replaces(struct vt_machine *m)
{
    struct vt_life *l = m->life;
    l->on_mirror |= l->follows && !m->guarded && !m->running && mirror_has_all(l) &&
                    !vt_owns_on_disk(m->host, l->vm);
    return l->on_mirror;
}

void vt_guest_whole(struct vt_life *l)
{
    l->follows = false;
    vt_world.saved += l->on_mirror;
    l->on_mirror = false;
}

/* ---- Running --------------------------------------------------------------------------------- */

/* What a worker of the host does at a touch, without asking the agent's data thread. */
static bool open_complete(struct vt_machine *m, uint64_t page)
{
    const struct tw_host_fault_view *v = &m->view;
    if (page >= v->pages || v->to_come[page] != 0)
        return false;
    const uint64_t bit = UINT64_C(1) << page % 64;
    if (v->watched[page / 64] & bit) {
        v->watched[page / 64] &= ~bit;
        ++*v->touched;
    }
    vt_machine_ready(m, page, 1);
    return true;
}

bool vt_machine_may_touch(struct vt_machine *m, struct vt_waiter *w)
{
    uint64_t page = tw_page_of(w->address);
    if (!m->guarded || m->opened[page] || open_complete(m, page))
        return true;
    w->told &= w->waits;
    w->waits = true;
    return false;
}

void vt_machine_ready(struct vt_machine *m, uint64_t page, uint64_t pages)
{
    const struct vt_life *l = m->life;
    /* A copy that was given up, and does not know yet, may be behind the one that runs. */
    bool elsewhere = l->runner && l->runner != m && l->runner->running;
    for (uint64_t end = page + pages; page < end && page < l->pages; page++) {
        const uint64_t at = page * TW_PAGE_SIZE;
        if (!m->opened[page] && !elsewhere && at < l->span &&
            memcmp(m->memory + at, l->image + at, TW_PAGE_SIZE) != 0)
            vt_problem("page %llu of %s is opened on %s before it is whole",
                       (unsigned long long)page, l->vm, vt_world.nodes[m->host].name);
        m->opened[page] = true;
    }
}

static uint64_t address_next(const struct vt_life *l)
{
    const uint64_t most = vt_world.scenario->data_pages;
    const uint64_t hot = most / 8 + 1;
    uint64_t page = vt_below(10) ? vt_below(hot) : vt_below(most + most / 2);
    if (page >= l->pages)
        page = l->pages - 1;
    return page * TW_PAGE_SIZE + vt_below(TW_PAGE_SIZE / 8) * 8;
}

static void mark(struct vt_machine *m, unsigned vcpu, uint64_t address)
{
    uint64_t *marks = &m->marks[tw_page_of(address)];
    const bool clean = !(*marks & tw_line_bit(address));
    if (!vt_world.scenario->all_writers_seen && vt_below(100) < UNSEEN_PERCENT)
        return;
    *marks |= tw_line_bit(address);
    if (clean)
        vt_pace_store(m, vcpu, address);
}

static void operate(struct vt_machine *m, unsigned vcpu, uint64_t address)
{
    struct vt_life *l = m->life;
    const uint64_t line = address / TW_LINE_SIZE * TW_LINE_SIZE;
    const uint64_t value = vt_below(6) ? tw_random_next(&vt_time.random) : 0;
    if (m->operations != l->operations)
        vt_problem("%s runs on %s at operation %llu of %llu", l->vm, vt_world.nodes[m->host].name,
                   (unsigned long long)m->operations, (unsigned long long)l->operations);
    if (memcmp(m->memory + line, l->image + line, TW_LINE_SIZE) != 0)
        vt_problem("%s reads an old line at %#llx on %s", l->vm, (unsigned long long)line,
                   vt_world.nodes[m->host].name);
    m->operations = ++l->operations;
    memcpy(m->memory + address, &value, sizeof value);
    memcpy(l->image + address, &value, sizeof value);
    m->data[tw_page_of(address)] = true;
    mark(m, vcpu, address);
}

static void run_vcpu(struct vt_machine *m, unsigned vcpu)
{
    struct vt_waiter *w = &m->waiters[vcpu];
    if (vt_pace_sleeps(m, vcpu))
        return;
    if (!w->waits)
        w->address = address_next(m->life);
    if (!vt_machine_may_touch(m, w))
        return;
    w->waits = false;
    operate(m, vcpu, w->address);
}

static void tick(void *ctx)
{
    struct vt_machine *m = ctx;
    m->ticking = false;
    if (!m->alive || !m->running)
        return;
    uint64_t n = (vt_now() - m->ran_ns) * vt_world.scenario->stores_per_s / TW_SEC;
    m->ran_ns = vt_now();
    for (uint64_t i = 0; i <= n && i < AT_ONCE && !vt_world.problem[0]; i++)
        run_vcpu(m, (unsigned)vt_below(VT_VCPUS));
    if (m->guarded && m->handle)
        vt_poke(&vt_world.nodes[m->host]);
    tick_later(m);
}

/* ---- For the world --------------------------------------------------------------------------- */

void vt_guests_begin(void)
{
    life_count = 0;
    next_pid = FIRST_PID;
}

void vt_guests_end(void)
{
    for (struct vt_machine *m = vt_machines, *next; m; m = next) {
        next = m->next;
        munmap(m->memory, m->life->bytes);
        free(m->marks);
        free(m->data);
        free(m->opened);
        vt_pace_end(m);
        free(m);
    }
    vt_machines = NULL;
    for (unsigned i = 0; i < life_count; i++)
        munmap(lives[i].image, lives[i].bytes);
}

void vt_guest_acknowledged(const char *vm)
{
    struct vt_life *l = life_find(vm);
    if (l)
        l->acknowledged = true;
    else
        vt_problem("%s is said to run and never was", vm);
}

void vt_guest_deleting(const char *vm)
{
    struct vt_life *l = life_find(vm);
    if (l)
        l->deleting = true;
}

/* Of that host if it has one, else the one that runs. */
static struct vt_machine *victim(int host)
{
    for (struct vt_machine *m = vt_machines; m; m = m->next)
        if (m->alive && (int)m->host == host)
            return m;
    for (unsigned i = 0; i < life_count; i++)
        if (lives[i].runner && lives[i].runner->alive)
            return lives[i].runner;
    return NULL;
}

void vt_guest_slow_down(const char *vm, unsigned percent)
{
    struct vt_life *l = life_find(vm);
    if (l && percent > l->slow_most_percent)
        l->slow_most_percent = percent;
}

bool vt_guest_slowed(const char *vm)
{
    for (struct vt_machine *m = vt_machines; m; m = m->next)
        if (strcmp(m->life->vm, vm) == 0 && vt_pace_on(m))
            return true;
    return false;
}

void vt_guests_kill(int host)
{
    struct vt_machine *m = victim(host);
    if (!m)
        return;
    struct vt_life *l = m->life;
    bool other = false;
    for (struct vt_machine *o = vt_machines; o; o = o->next)
        other |= o != m && o->life == l && current(o);
    l->killed |= !other || vt_owns_on_disk(m->host, l->vm) || (l->follows && !mirror_replaces(m));
    vt_machine_end(m, "killed");
    vt_poke(&vt_world.nodes[m->host]);
}

void vt_guests_end_with_host(unsigned host)
{
    for (struct vt_machine *m = vt_machines; m; m = m->next) {
        if (!m->alive || m->host != host)
            continue;
        bool owned = vt_owns_on_disk(host, m->life->vm) || m->life->runner == m;
        m->life->with_host |= owned;
        m->life->killed |= owned || (m->life->follows && !mirror_replaces(m));
        vt_machine_end(m, "its host is off");
    }
}

static struct vt_machine *only_machine(const struct vt_life *l, unsigned *count)
{
    struct vt_machine *found = NULL;
    *count = 0;
    for (struct vt_machine *m = vt_machines; m; m = m->next) {
        if (m->life != l || !m->alive)
            continue;
        found = m;
        ++*count;
    }
    return found;
}

int vt_guest_runs_on(const char *vm)
{
    const struct vt_life *l = life_find(vm);
    return l && l->runner && l->runner->running ? (int)l->runner->host : -1;
}

bool vt_guest_lost(const char *vm)
{
    const struct vt_life *l = life_find(vm);
    return l && may_be_lost(l) && vt_guest_runs_on(vm) < 0;
}

unsigned vt_guest_copies(const char *vm)
{
    const struct vt_life *l = life_find(vm);
    unsigned count = 0;
    if (l)
        only_machine(l, &count);
    return count;
}

void vt_guest_check_end(const char *vm, bool gone)
{
    const struct vt_life *l = life_find(vm);
    unsigned count;
    if (!l)
        return;
    struct vt_machine *m = only_machine(l, &count);
    if (gone) {
        if (count)
            vt_problem("%s is deleted, and a copy of it is left on %s", vm,
                       vt_world.nodes[m->host].name);
        return;
    }
    if (may_be_lost(l) && count == 0)
        return;
    if (count != 1)
        vt_problem("there are %u copies of %s", count, vm);
    else if (!m->running)
        vt_problem("%s does not run on %s", vm, vt_world.nodes[m->host].name);
    else if (memcmp(m->memory, l->image, l->bytes) != 0)
        vt_problem("the memory of %s did not become what it was", vm);
    else if (vt_pace_on(m))
        vt_problem("%s is slowed, and nothing moves it", vm);
}
