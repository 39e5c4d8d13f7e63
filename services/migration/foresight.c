#include "services/migration/foresight.h"

#include "services/migration/big_array.h"

static bool uses(enum tw_foresight_choice choice, unsigned kind)
{
    return kind != TW_PREDICTOR_NONE && (choice == TW_FORESIGHT_AUTO || (unsigned)choice == kind);
}

enum tw_code tw_foresight_open(struct tw_foresight *f, enum tw_foresight_choice choice,
                               uint64_t pages, struct tw_error *err)
{
    static_assert((unsigned)TW_FORESIGHT_SEQUENCE == (unsigned)TW_PREDICTOR_SEQUENCE &&
                      (unsigned)TW_FORESIGHT_AUTO == TW_PREDICTOR_KINDS,
                  "a choice is a kind of predictor, or all");
    *f = (struct tw_foresight){.choice = choice, .pages = pages};
    f->on_trial = choice == TW_FORESIGHT_AUTO;
    f->followed = f->on_trial ? TW_PREDICTOR_NONE : (enum tw_predictor_kind)choice;
    if (choice == TW_FORESIGHT_NONE)
        return TW_OK;
    f->sent = tw_big_array_open(pages / 64 + 1, "bitmap of pages sent ahead", err);
    enum tw_code code = f->sent ? TW_OK : TW_RESOURCE_EXHAUSTED;
    for (unsigned kind = 0; kind < TW_PREDICTOR_KINDS && code == TW_OK; kind++)
        if (uses(choice, kind))
            code = tw_predictor_open((enum tw_predictor_kind)kind, pages, &f->predictor[kind], err);
    if (code != TW_OK)
        tw_foresight_close(f);
    return code;
}

void tw_foresight_close(struct tw_foresight *f)
{
    for (unsigned kind = 0; kind < TW_PREDICTOR_KINDS; kind++)
        tw_predictor_close(f->predictor[kind]);
    tw_big_array_close(f->sent, f->pages / 64 + 1);
    const struct tw_foresight_figures figures = f->figures;
    const enum tw_predictor_kind followed = f->followed;
    *f = (struct tw_foresight){.figures = figures, .followed = followed};
}

/* ---- Trial ------------------------------------------------------------------------------------
 */

static bool has_named(const struct tw_trial *t, uint64_t page)
{
    uint64_t n = t->count < TW_NAMED_MAX ? t->count : TW_NAMED_MAX;
    for (uint64_t i = 0; i < n; i++)
        if (t->named[i] == page)
            return true;
    return false;
}

static void judge(struct tw_foresight *f)
{
    unsigned best = TW_PREDICTOR_NONE;
    for (unsigned kind = 1; kind < TW_PREDICTOR_KINDS; kind++) {
        const struct tw_trial *t = &f->trial[kind], *b = &f->trial[best];
        bool better = t->right > b->right || (t->right == b->right && t->count < b->count);
        if (t->right * TW_TRIAL_ONE_IN >= TW_TRIAL_MISSES && (best == 0 || better))
            best = kind;
    }
    f->followed = (enum tw_predictor_kind)best;
}

/* What is missed while a predictor is followed says little of how good it is: its best guesses are
 * not missed any more. So there is a time for either. */
static void next_phase(struct tw_foresight *f)
{
    unsigned length = f->on_trial ? TW_TRIAL_MISSES : TW_FOLLOW_MISSES;
    if (f->choice != TW_FORESIGHT_AUTO || ++f->misses_in_phase < length)
        return;
    f->misses_in_phase = 0;
    if (f->on_trial) {
        judge(f);
    } else {
        f->followed = TW_PREDICTOR_NONE;
        for (unsigned kind = 0; kind < TW_PREDICTOR_KINDS; kind++)
            f->trial[kind] = (struct tw_trial){0};
    }
    f->on_trial = !f->on_trial;
}

/* ---- Misses and what they name ----------------------------------------------------------------
 */

/* In front of all others, the likeliest first; the oldest make room. */
static void put_ahead(struct tw_foresight *f, const uint64_t *pages, unsigned count)
{
    for (unsigned i = count; i-- > 0;) {
        f->first = (f->first + TW_AHEAD_MAX - 1) % TW_AHEAD_MAX;
        f->ahead[f->first] = pages[i];
        f->count += f->count < TW_AHEAD_MAX;
    }
}

static bool is_sent(const struct tw_foresight *f, uint64_t page)
{
    return f->sent[page / 64] >> (page % 64) & 1;
}

static bool is_ahead(const struct tw_foresight *f, uint64_t page)
{
    for (unsigned i = 0; i < f->count; i++)
        if (f->ahead[(f->first + i) % TW_AHEAD_MAX] == page)
            return true;
    return false;
}

static void learn(struct tw_foresight *f, unsigned kind, uint64_t page)
{
    uint64_t guesses[TW_GUESSES_MAX];
    struct tw_trial *t = &f->trial[kind];
    t->right += f->on_trial && has_named(t, page);
    unsigned count = tw_predictor_miss(f->predictor[kind], page, guesses);
    for (unsigned i = 0; f->on_trial && i < count; i++)
        t->named[t->count++ % TW_NAMED_MAX] = guesses[i];
    if (kind != (unsigned)f->followed)
        return;
    f->figures.named += count;
    put_ahead(f, guesses, count);
}

void tw_foresight_miss(struct tw_foresight *f, uint64_t page, bool part)
{
    f->figures.misses++;
    if (!f->sent || page >= f->pages)
        return;
    f->figures.late += is_sent(f, page) || is_ahead(f, page);
    for (unsigned kind = 0; kind < TW_PREDICTOR_KINDS; kind++)
        if (f->predictor[kind])
            learn(f, kind, page);
    if (part && f->followed != TW_PREDICTOR_NONE && !is_ahead(f, page))
        put_ahead(f, &page, 1);
    next_phase(f);
}

bool tw_foresight_next(struct tw_foresight *f, const struct tw_line_set *set, uint64_t *page)
{
    while (f->count) {
        uint64_t next = f->ahead[f->first];
        f->first = (f->first + 1) % TW_AHEAD_MAX;
        f->count--;
        if (set->of_page[next] == 0)
            continue; /* it is there, or on its way */
        f->sent[next / 64] |= UINT64_C(1) << (next % 64);
        f->figures.ahead++;
        *page = next;
        return true;
    }
    return false;
}

const char *tw_foresight_name(const struct tw_foresight *f)
{
    return tw_predictor_name(f->followed);
}

/* ---- Judged afterwards ------------------------------------------------------------------------
 */

static unsigned percent(uint64_t part, uint64_t whole)
{
    return whole ? (unsigned)((double)part * 100 / (double)whole + 0.5) : 0;
}

struct tw_foresight_quality tw_foresight_judge(const struct tw_foresight_figures *f)
{
    uint64_t used =
        f->watched ? (uint64_t)((double)f->ahead * (double)f->touched / (double)f->watched) : 0;
    return (struct tw_foresight_quality){.accuracy = percent(f->touched, f->watched),
                                         .coverage = percent(used, used + f->misses),
                                         .timeliness = percent(used, used + f->late)};
}
