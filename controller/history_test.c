/* What earlier migrations tell a plan: the middle of the newest few, each method's own. */
#include "controller/plans.h"

#include "base/log.h"
#include "towline/v1/common.pb-c.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define METHOD(name) TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_##name

static char dir[64], path[96];
static struct tw_error err;
static struct tw_store *store;

static void begin(void)
{
    const struct tw_store_config config = {.path = path};
    tw_log_configure("test", TW_LOG_OFF);
    strcpy(dir, "/tmp/towline-history-XXXXXX");
    cr_assert(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/store.db", dir);
    cr_assert_eq(tw_store_open(&config, &store, &err), TW_OK, "%s", err.what);
}

static void end(void)
{
    static const char *const ends[] = {"", ".lock", "-wal", "-shm"};
    char name[160];
    tw_store_close(store);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        snprintf(name, sizeof name, "%s%s", path, ends[i]);
        unlink(name);
    }
    rmdir(dir);
}

TestSuite(history, .init = begin, .fini = end);

/* A VM that was moved, its device state loaded in `load_us` behind a wait of 1 ms for the save. */
static void moved(const char *vm, Towline__V1__MigrationMethod method, uint64_t load_us,
                  uint64_t save_us)
{
    Towline__V1__MigrationProgress p = TOWLINE__V1__MIGRATION_PROGRESS__INIT;
    struct tw_migration_record m = {
        .state = TW_MIGRATION_COMPLETED, .epoch = 4, .source_epoch = 3, .created_unix_ms = 1};
    p.method = method;
    p.stop_us = 1000;
    p.final_pass_us = 20000;
    p.saving_us = 1000;
    p.save_us = save_us;
    p.device_state_us = load_us + p.saving_us;
    p.hand_over_us = 3000;
    p.mirror_us = 700000; /* a forecast counts it by itself */
    p.downtime_us =
        p.stop_us + p.final_pass_us + p.device_state_us + p.mirror_us + p.hand_over_us + 500;
    p.bytes_device_state = 300000;
    snprintf(m.vm, sizeof m.vm, "%s", vm);
    strcpy(m.source, "a");
    strcpy(m.destination, "b");
    m.progress_size = towline__v1__migration_progress__pack(&p, m.progress);
    cr_assert_eq(tw_store_begin(store, TW_STORE_DURABLE, &err), TW_OK);
    cr_assert_eq(tw_store_end(store, tw_store_migration_add(store, &m, &err), &err), TW_OK, "%s",
                 err.what);
}

static Towline__V1__FixedCosts *told(const char *vm)
{
    Towline__V1__FixedCosts *c;
    cr_assert_eq(tw_plans_history(store, vm, &c, &err), TW_OK, "%s", err.what);
    return c;
}

static const Towline__V1__MethodCosts *of(const Towline__V1__FixedCosts *c,
                                          Towline__V1__MigrationMethod method)
{
    for (size_t i = 0; i < c->n_of_method; i++)
        if (c->of_method[i]->method == method)
            return c->of_method[i];
    cr_assert_fail("nothing of method %d", (int)method);
    return NULL;
}

Test(history, one_that_had_to_wait_says_nothing_about_the_next)
{
    cr_assert_null(told("web"), "nothing was moved yet");
    moved("web", METHOD(PRECOPY), 6000, 15000);
    moved("web", METHOD(PRECOPY), 250000, 400000);
    moved("web", METHOD(PRECOPY), 8000, 17000);
    Towline__V1__FixedCosts *c = told("web");
    cr_assert_eq(of(c, METHOD(PRECOPY))->load_us, 8000);
    cr_assert_eq(of(c, METHOD(PRECOPY))->hand_over_us, 3500, "with what no part has");
    cr_assert_eq(c->save_us, 17000, "its own time, not that of the final pass");
    cr_assert_str_eq(c->migration, "m-3");
    towline__v1__fixed_costs__free_unpacked(c, NULL);
}

Test(history, a_method_has_its_own_costs_and_else_those_of_the_next_one)
{
    moved("web", METHOD(PRECOPY), 6000, 15000);
    moved("web", METHOD(HYBRID), 30000, 15000);
    Towline__V1__FixedCosts *c = told("web");
    cr_assert_eq(of(c, METHOD(PRECOPY))->load_us, 6000);
    cr_assert_eq(of(c, METHOD(HYBRID))->load_us, 30000);
    cr_assert_eq(of(c, METHOD(POSTCOPY))->load_us, 30000, "which it is most like");
    towline__v1__fixed_costs__free_unpacked(c, NULL);
}

Test(history, another_vm_tells_where_there_is_no_own)
{
    moved("other", METHOD(PRECOPY), 9000, 15000);
    Towline__V1__FixedCosts *c = told("web");
    cr_assert_eq(of(c, METHOD(PRECOPY))->load_us, 9000);
    towline__v1__fixed_costs__free_unpacked(c, NULL);
    moved("web", METHOD(PRECOPY), 5000, 15000);
    c = told("web");
    cr_assert_eq(of(c, METHOD(PRECOPY))->load_us, 5000);
    towline__v1__fixed_costs__free_unpacked(c, NULL);
}

/* An agent that does not tell when the save ended: that it was over before the pass is no time. */
Test(history, the_length_of_the_final_pass_is_not_taken_for_the_save)
{
    moved("web", METHOD(PRECOPY), 6000, 0);
    Towline__V1__FixedCosts *c = told("web");
    cr_assert_eq(c->save_us, 21000, "it was waited for");
    towline__v1__fixed_costs__free_unpacked(c, NULL);
}
