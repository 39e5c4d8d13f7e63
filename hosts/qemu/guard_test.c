/* Guests that run before their memory is there: real machines, memory brought by hand. */
#include "hosts/qemu/test_vm.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define LIMIT_NS (40 * TW_SEC)

TestSuite(guard, .timeout = 120);

struct moved {
    struct test_vm from, to;
    struct tw_host_state state;
    uint64_t waits; /* touches that were told of */
    uint8_t *here;  /* a byte a page: brought */
};

/* Brings one page into the file, as lines do that arrive: through the agent's own mapping. */
static void bring(struct moved *m, uint64_t page)
{
    struct tw_error err = {0};
    const struct tw_range r = {page * TW_PAGE_SIZE, TW_PAGE_SIZE};
    const struct tw_range data = m->from.host->ops->next_data(m->from.host->ctx, r.start);
    if (m->here[page])
        return;
    m->here[page] = 1;
    if (data.length == 0 || data.start >= r.start + r.length)
        return; /* a hole, and it stays one */
    cr_assert_eq(m->to.host->ops->reserve(m->to.host->ctx, r, &err), TW_OK);
    memcpy(m->to.host->memory + r.start, m->from.host->memory + r.start, TW_PAGE_SIZE);
}

static void serve(struct moved *m)
{
    struct tw_host *h = m->to.host;
    struct tw_host_fault f[4];
    struct tw_error err = {0};
    for (size_t n; (n = h->faults->take(h->ctx, f, 4)) > 0;)
        for (size_t i = 0; i < n; i++) {
            const uint64_t page = tw_page_of(f[i].address);
            bring(m, page);
            cr_assert_eq(h->faults->ready(h->ctx, page, 1, &err), TW_OK, "%s", err.what);
            m->waits++;
        }
}

static void step(struct moved *m)
{
    struct pollfd p = {.fd = tw_qemu_fd(m->to.qemu), .events = POLLIN};
    poll(&p, 1, 10);
    tw_qemu_step(m->to.qemu);
    serve(m);
}

static void must(struct moved *m, enum tw_host_operation op, const struct tw_host_state *state)
{
    struct tw_host *h = m->to.host;
    struct tw_error err = {0};
    enum tw_code code =
        h->ops->begin(h->ctx, op, state, tw_after(tw_now(&tw_monotonic), LIMIT_NS), &err);
    cr_assert_eq(code, TW_OK, "%s", err.what);
    while (!h->ops->poll(h->ctx, NULL, &code, &err))
        step(m);
    cr_assert_eq(code, TW_OK, "%s", err.what);
}

static void must_guard(struct moved *m)
{
    struct tw_host *h = m->to.host;
    struct tw_error err = {0};
    enum tw_code code = TW_OK;
    const uint64_t end = tw_after(tw_now(&tw_monotonic), LIMIT_NS);
    while (!h->faults->guard(h->ctx, &code, &err)) {
        struct pollfd p = {.fd = tw_qemu_fd(m->to.qemu), .events = POLLIN};
        cr_assert_lt(tw_now(&tw_monotonic), end);
        poll(&p, 1, 10);
        tw_qemu_step(m->to.qemu);
    }
    cr_assert_eq(code, TW_OK, "%s (%s)", err.what, err.given);
}

/* A guest that has written its pages, stopped and saved, and a machine that waits for it. */
static void prepare(struct moved *m)
{
    *m = (struct moved){0};
    test_vm_init(&m->from, "from");
    m->from.config.command_line = "mode=sparse pages=1000 fill=1";
    test_vm_spawn(&m->from);
    test_vm_await_ready(&m->from);
    test_vm_run(&m->from, 200 * TW_MS);
    test_vm_init(&m->to, "to");
    m->to.config.incoming = true;
    test_vm_spawn(&m->to);
    test_vm_while(&m->to, TW_QEMU_STARTING);
    test_vm_must(&m->from, TW_HOST_STOP, NULL);
    test_vm_must(&m->from, TW_HOST_SAVE_STATE, &m->state);
    m->here = calloc(m->to.host->memory_bytes / TW_PAGE_SIZE, 1);
}

static void end(struct moved *m)
{
    test_vm_destroy(&m->from);
    test_vm_destroy(&m->to);
    free(m->state.data);
    free(m->here);
}

/* `iterations` further passes over memory: each checks what the one before has written. The control
 * block is read through the file, which never fills a hole: the guest has touched it by then. */
static void expect_passes(struct moved *m, uint64_t iterations)
{
    const uint64_t limit = tw_after(tw_now(&tw_monotonic), LIMIT_NS);
    const uint64_t first = m->from.control->iteration;
    while (!m->here[TW_SPARSE_CONTROL / TW_PAGE_SIZE] ||
           m->to.control->iteration < first + iterations) {
        cr_assert_lt(tw_now(&tw_monotonic), limit, "the guest does not get on, %lu waits",
                     (unsigned long)m->waits);
        step(m);
    }
    cr_assert_eq(m->to.control->bad, 0);
}

Test(guard, a_guest_runs_on_memory_that_comes_when_it_is_touched)
{
    struct moved m;
    prepare(&m);
    must_guard(&m);
    must(&m, TW_HOST_LOAD_STATE, &m.state);
    must(&m, TW_HOST_CONTINUE, NULL);
    expect_passes(&m, 3);
    cr_assert_gt(m.waits, 1000, "every page of its work was waited for");
    const uint64_t waits = m.waits;
    for (uint64_t p = 0; p < m.to.host->memory_bytes / TW_PAGE_SIZE; p++)
        bring(&m, p);
    m.to.host->faults->release(m.to.host->ctx);
    const uint64_t before = m.to.control->iteration - m.from.control->iteration;
    expect_passes(&m, before + 3);
    cr_assert_eq(m.waits, waits, "without a guard nobody waits");
    end(&m);
}

/* Pages that were sent before and got stale are there, and still nobody sees them too early. */
Test(guard, a_stale_page_is_closed_until_it_was_mended)
{
    struct moved m;
    prepare(&m);
    test_vm_copy_memory(&m.from, &m.to);
    for (unsigned i = 0; i < 1000; i += 2) /* what no generation would accept */
        memset(m.to.host->memory + TW_SPARSE_DATA + i * TW_PAGE_SIZE, 0x55, TW_LINE_SIZE);
    must_guard(&m);
    must(&m, TW_HOST_LOAD_STATE, &m.state);
    must(&m, TW_HOST_CONTINUE, NULL);
    expect_passes(&m, 3);
    cr_assert_gt(m.waits, 1000);
    end(&m);
}

Test(guard, pages_ahead_are_opened_with_the_one_that_was_touched)
{
    struct moved m;
    struct tw_host_fault f;
    struct tw_error err;
    prepare(&m);
    test_vm_copy_memory(&m.from, &m.to);
    must_guard(&m);
    memset(m.here, 1, m.to.host->memory_bytes / TW_PAGE_SIZE);
    const uint64_t pages = m.to.host->memory_bytes / TW_PAGE_SIZE;
    struct tw_host *h = m.to.host;
    for (uint64_t p = 0; p < pages; p += 64) /* holes among them end a run, and harm nothing */
        cr_assert_eq(h->faults->ready(h->ctx, p, 64, &err), TW_OK, "%s", err.what);
    must(&m, TW_HOST_LOAD_STATE, &m.state);
    must(&m, TW_HOST_CONTINUE, NULL);
    expect_passes(&m, 3);
    cr_assert_lt(m.waits, 500, "%lu", (unsigned long)m.waits);
    cr_assert_eq(h->faults->take(h->ctx, &f, 1), 0);
    end(&m);
}

/* Nobody brings anything: the machine waits, and can still be ended. */
Test(guard, a_guest_that_waits_can_be_ended)
{
    struct moved m;
    struct tw_host_fault f[8];
    prepare(&m);
    must_guard(&m);
    must(&m, TW_HOST_LOAD_STATE, &m.state);
    struct tw_host *h = m.to.host;
    struct tw_error err = {0};
    cr_assert_eq(h->ops->begin(h->ctx, TW_HOST_CONTINUE, NULL,
                               tw_after(tw_now(&tw_monotonic), LIMIT_NS), &err),
                 TW_OK);
    const uint64_t limit = tw_after(tw_now(&tw_monotonic), LIMIT_NS);
    while (h->faults->take(h->ctx, f, 8) == 0) {
        struct pollfd p = {.fd = tw_qemu_fd(m.to.qemu), .events = POLLIN};
        cr_assert_lt(tw_now(&tw_monotonic), limit, "nobody waits");
        poll(&p, 1, 10);
        tw_qemu_step(m.to.qemu);
    }
    const pid_t pid = tw_qemu_pid(m.to.qemu);
    end(&m);
    cr_assert_neq(kill(pid, 0), 0);
}

/* The agent ends, with waits that only it knew of and others that nobody was told of. */
static void agent_ends(struct moved *m)
{
    struct tw_host_fault f;
    struct tw_host *h = m->to.host;
    const uint64_t limit = tw_after(tw_now(&tw_monotonic), LIMIT_NS);
    while (h->faults->take(h->ctx, &f, 1) == 0) {
        struct pollfd p = {.fd = tw_qemu_fd(m->to.qemu), .events = POLLIN};
        cr_assert_lt(tw_now(&tw_monotonic), limit, "nobody waits");
        poll(&p, 1, 10);
        tw_qemu_step(m->to.qemu);
    }
    tw_qemu_release(m->to.qemu);
}

static void next_agent(struct moved *m, pid_t pid, uint64_t start_ticks)
{
    struct tw_error err = {0};
    enum tw_code code = TW_OK;
    const uint64_t limit = tw_after(tw_now(&tw_monotonic), LIMIT_NS);
    m->to.config.incoming = false;
    cr_assert_eq(tw_qemu_adopt(&m->to.config, pid, start_ticks, &m->to.qemu, &err), TW_OK, "%s",
                 err.what);
    m->to.host = tw_qemu_host(m->to.qemu);
    m->to.control = (const volatile void *)(m->to.host->memory + TW_SPARSE_CONTROL);
    while (!m->to.host->faults->rejoin(m->to.host->ctx, &code, &err)) {
        struct pollfd p = {.fd = tw_qemu_fd(m->to.qemu), .events = POLLIN};
        cr_assert_lt(tw_now(&tw_monotonic), limit);
        poll(&p, 1, 10);
    }
    cr_assert_eq(code, TW_OK, "%s (%s)", err.what, err.given);
}

/* The kernel ends a guard with the last descriptor of it, and lets whoever waits at zeros then. */
Test(guard, without_an_agent_a_guest_waits_and_the_next_one_takes_it_over)
{
    struct moved m;
    prepare(&m);
    must_guard(&m);
    must(&m, TW_HOST_LOAD_STATE, &m.state);
    must(&m, TW_HOST_CONTINUE, NULL);
    for (unsigned agent = 0; agent < 3; agent++) {
        const pid_t pid = tw_qemu_pid(m.to.qemu);
        const uint64_t ticks = tw_qemu_start_ticks(m.to.qemu);
        const uint64_t waits = m.waits;
        agent_ends(&m);
        poll(NULL, 0, 100); /* as long as one likes: it waits */
        next_agent(&m, pid, ticks);
        const uint64_t limit = tw_after(tw_now(&tw_monotonic), LIMIT_NS);
        while (m.waits < waits + 100) {
            cr_assert_lt(tw_now(&tw_monotonic), limit, "the guest does not get on");
            step(&m);
        }
    }
    expect_passes(&m, 3);
    cr_assert_gt(m.waits, 1000, "every page of its work was waited for");
    end(&m);
}
