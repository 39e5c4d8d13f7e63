/* What earlier migrations tell about those parts of one that do not depend on the guest. Each part
 * is the middle one of the newest few: a switch-over that had to wait for a busy processor says
 * nothing about the next one. */
#include "controller/plans.h"

#include "base/line.h"
#include "controller/convert.h"

#include <stdlib.h>
#include <string.h>

#define LOOKED_AT 64u /* migrations, newest first */
#define KEPT      5u  /* values of a part, at most */

/* In the order of how much follows the VM. */
static const Towline__V1__MigrationMethod methods[] = {
    TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_PRECOPY,
    TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_HYBRID,
    TOWLINE__V1__MIGRATION_METHOD__MIGRATION_METHOD_POSTCOPY};
#define METHODS (sizeof methods / sizeof *methods)

/* The newest values of one part. */
struct part {
    uint64_t value[KEPT];
    unsigned count;
};

struct past {
    const char *vm;
    bool same_vm; /* only those */
    unsigned count;
    char newest[TW_NAME_SIZE];
    struct part start, stop, save, state_bytes, compare, link;
    struct {
        struct part last, load, hand_over;
    } of[METHODS];
};

static void put(struct part *part, uint64_t value)
{
    if (part->count < KEPT)
        part->value[part->count++] = value;
}

/* The middle one, of an even number the mean of the two; 0 = nothing is known. */
static uint64_t middle(const struct part *part)
{
    uint64_t sorted[KEPT];
    unsigned n = part->count;
    for (unsigned i = 0; i < n; i++) {
        unsigned at = i;
        for (; at > 0 && sorted[at - 1] > part->value[i]; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = part->value[i];
    }
    if (n == 0)
        return 0;
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

/* An agent that does not say it knows only the first. */
static unsigned index_of(Towline__V1__MigrationMethod method)
{
    for (unsigned m = 1; m < METHODS; m++)
        if (methods[m] == method)
            return m;
    return 0;
}

/* Bytes of data that the final comparison went over: what the full copy was made of. */
static uint64_t compared_bytes(const Towline__V1__MigrationProgress *p)
{
    return p->n_rounds && p->compare_us ? p->rounds[0]->pages * TW_PAGE_SIZE : 0;
}

/* A save that was over before the final pass is only told by agents that look for its end. */
static void put_save(struct past *past, const Towline__V1__MigrationProgress *p)
{
    if (p->save_us)
        put(&past->save, p->save_us);
    else if (p->saving_us)
        put(&past->save, p->final_pass_us + p->saving_us);
}

static void take(struct past *past, const Towline__V1__MigrationProgress *p)
{
    const Towline__V1__Round *last = p->n_rounds ? p->rounds[p->n_rounds - 1] : NULL;
    uint64_t link = p->link_bytes_per_s, bytes = compared_bytes(p);
    uint64_t sending = last && last->final && link ? last->bytes * 1000000 / link : 0;
    uint64_t named =
        p->stop_us + p->final_pass_us + p->device_state_us + p->mirror_us + p->hand_over_us;
    unsigned m = index_of(p->method);
    past->count++;
    put(&past->start, p->start_us);
    put(&past->stop, p->stop_us);
    put(&past->of[m].last, less(less(p->final_pass_us, p->compare_us), sending));
    put_save(past, p);
    put(&past->of[m].load, less(p->device_state_us, p->saving_us));
    put(&past->of[m].hand_over, p->hand_over_us + less(p->downtime_us, named));
    put(&past->state_bytes, p->bytes_device_state);
    if (link)
        put(&past->link, link);
    if (bytes)
        put(&past->compare, bytes * 1000000 / p->compare_us);
}

static void look(void *ctx, const struct tw_migration_record *m)
{
    struct past *past = ctx;
    if (m->state != TW_MIGRATION_COMPLETED || (past->same_vm && strcmp(m->vm, past->vm) != 0))
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

/* Those of a method that was never run here are those of the one that is most like it. */
static bool method_costs(const struct past *past, Towline__V1__FixedCosts *c)
{
    static const unsigned like[METHODS][METHODS] = {{0, 1, 2}, {1, 2, 0}, {2, 1, 0}};
    c->of_method = calloc(METHODS, sizeof(Towline__V1__MethodCosts *));
    for (unsigned m = 0; c->of_method && m < METHODS; m++) {
        unsigned i = 0;
        while (i + 1 < METHODS && past->of[like[m][i]].load.count == 0)
            i++;
        Towline__V1__MethodCosts *p = malloc(sizeof *p);
        if (!p)
            return false;
        towline__v1__method_costs__init(p);
        p->method = methods[m];
        p->last_lines_us = middle(&past->of[like[m][i]].last);
        p->load_us = middle(&past->of[like[m][i]].load);
        p->hand_over_us = middle(&past->of[like[m][i]].hand_over);
        c->of_method[c->n_of_method++] = p;
    }
    return c->of_method != NULL;
}

static Towline__V1__FixedCosts *usual(const struct past *past)
{
    Towline__V1__FixedCosts *c = malloc(sizeof *c);
    if (!c)
        return NULL;
    towline__v1__fixed_costs__init(c);
    c->start_us = middle(&past->start);
    c->stop_us = middle(&past->stop);
    c->save_us = middle(&past->save);
    c->device_state_bytes = middle(&past->state_bytes);
    c->link_bytes_per_s = middle(&past->link);
    c->compare_bytes_per_s = middle(&past->compare);
    if (method_costs(past, c) && tw_text_set(&c->migration, past->newest))
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
        *costs = usual(past);
    return code;
}
