/* What earlier migrations tell about those parts of one that do not depend on the guest. */
#include "controller/plans.h"

#include "base/line.h"
#include "controller/convert.h"

#include <stdlib.h>
#include <string.h>

#define LOOKED_AT 64u /* migrations, newest first */
#define AVERAGED  4u  /* of these, at most */

struct past {
    const char *vm;
    bool same_vm; /* only those */
    unsigned count, with_link, with_compare;
    char newest[TW_NAME_SIZE];
    uint64_t start_us, stop_us, last_us, save_us, load_us, hand_over_us;
    uint64_t compare_per_s, link_per_s, state_bytes;
};

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* Bytes of data that the final comparison went over: what the full copy was made of. */
static uint64_t compared_bytes(const Towline__V1__MigrationProgress *p)
{
    return p->n_rounds && p->compare_us ? p->rounds[0]->pages * TW_PAGE_SIZE : 0;
}

static void take(struct past *past, const Towline__V1__MigrationProgress *p)
{
    const Towline__V1__Round *last = p->n_rounds ? p->rounds[p->n_rounds - 1] : NULL;
    uint64_t link = p->link_bytes_per_s, bytes = compared_bytes(p);
    uint64_t sending = last && last->final && link ? last->bytes * 1000000 / link : 0;
    uint64_t named = p->stop_us + p->final_pass_us + p->device_state_us + p->hand_over_us;
    past->count++;
    past->start_us += p->start_us;
    past->stop_us += p->stop_us;
    past->last_us += less(less(p->final_pass_us, p->compare_us), sending);
    past->save_us += p->final_pass_us + p->saving_us;
    past->load_us += less(p->device_state_us, p->saving_us);
    past->hand_over_us += p->hand_over_us + less(p->downtime_us, named);
    past->state_bytes += p->bytes_device_state;
    if (link) {
        past->link_per_s += link;
        past->with_link++;
    }
    if (bytes) {
        past->compare_per_s += bytes * 1000000 / p->compare_us;
        past->with_compare++;
    }
}

static void look(void *ctx, const struct tw_migration_record *m)
{
    struct past *past = ctx;
    if (m->state != TW_MIGRATION_COMPLETED || past->count == AVERAGED ||
        (past->same_vm && strcmp(m->vm, past->vm) != 0))
        return;
    Towline__V1__MigrationProgress *p =
        towline__v1__migration_progress__unpack(NULL, m->progress_size, m->progress);
    if (!p)
        return;
    if (p->downtime_us && p->device_state_us) {
        if (past->count == 0)
            memcpy(past->newest, m->id, sizeof past->newest);
        take(past, p);
    }
    towline__v1__migration_progress__free_unpacked(p, NULL);
}

static Towline__V1__FixedCosts *average(const struct past *past)
{
    uint64_t n = past->count;
    Towline__V1__FixedCosts *c = malloc(sizeof *c);
    if (!c)
        return NULL;
    towline__v1__fixed_costs__init(c);
    c->start_us = past->start_us / n;
    c->stop_us = past->stop_us / n;
    c->last_lines_us = past->last_us / n;
    c->save_us = past->save_us / n;
    c->load_us = past->load_us / n;
    c->hand_over_us = past->hand_over_us / n;
    c->device_state_bytes = past->state_bytes / n;
    if (past->with_link)
        c->link_bytes_per_s = past->link_per_s / past->with_link;
    if (past->with_compare)
        c->compare_bytes_per_s = past->compare_per_s / past->with_compare;
    if (tw_text_set(&c->migration, past->newest))
        return c;
    towline__v1__fixed_costs__free_unpacked(c, NULL);
    return NULL;
}

enum tw_code tw_plans_history(struct tw_store *store, const char *vm,
                              Towline__V1__FixedCosts **costs, struct tw_error *err)
{
    struct past own = {.vm = vm, .same_vm = true}, any = {.vm = vm};
    *costs = NULL;
    enum tw_code code = tw_store_begin(store, TW_STORE_READ, err);
    if (code != TW_OK)
        return code;
    code = tw_store_migrations_each(store, vm, LOOKED_AT, look, &own, err);
    if (code == TW_OK && !own.count)
        code = tw_store_migrations_each(store, "", LOOKED_AT, look, &any, err);
    code = tw_store_end(store, code, err);
    const struct past *past = own.count ? &own : &any;
    if (code == TW_OK && past->count)
        *costs = average(past);
    return code;
}
