#include "fpga-model/predictor.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK      8u /* pages that a miss without a history brings */
#define STREAMS    8u
#define HISTORY    32u /* differences: a power of two */
#define VOTE_MIN   4u
#define STRIDE_MIN 4u /* guesses once a stride is known */
#define FOLLOWERS  (1u << 16)
#define CONTEXTS   (1u << 12)
#define CONFIDENT  2u /* of what is believed */
#define CONFIDENCE 7u /* at most */
#define CHAIN      16u
#define NO_PAGE    UINT64_MAX

/* A run of misses that the guesses keep up with. */
struct stream {
    uint64_t end;    /* behind the last guess */
    uint64_t window; /* pages guessed at last */
    uint64_t used;   /* number of the miss */
};

/* What came after a page. */
struct follower {
    uint64_t page, next;
};

/* What came after two differences. */
struct context {
    int64_t before, last; /* differences */
    int64_t next;
    unsigned confidence; /* 0 = unused */
};

/* A place in a sequence. */
struct walk {
    uint64_t page;
    int64_t before, last; /* differences */
    unsigned known;       /* of them: with fewer than two nothing follows from them */
};

struct tw_predictor {
    enum tw_predictor_kind kind;
    uint64_t pages;
    uint64_t misses; /* and touches */
    uint64_t last;   /* page of the last miss, or NO_PAGE */

    struct stream streams[STREAMS];

    int64_t differences[HISTORY]; /* a ring */
    unsigned known;               /* of them */
    int64_t stride;               /* of the last guesses, 0 = none */
    uint64_t expected;            /* the miss that shows that they were right */
    unsigned depth;               /* guesses along the stride */

    struct follower *followers; /* FOLLOWERS, by page; NULL unless for sequences */
    struct context *contexts;   /* CONTEXTS, by both differences */
    struct walk now, tail;      /* where the misses are, and where the last guesses ended */
    bool unseen;                /* what came behind the last miss was guessed, and not seen */
};

struct guesses {
    uint64_t *pages;
    unsigned count;
};

const char *tw_predictor_name(enum tw_predictor_kind kind)
{
    static const char *const names[TW_PREDICTOR_KINDS] = {"none", "spatial", "stride", "sequence"};
    return names[kind];
}

enum tw_code tw_predictor_open(enum tw_predictor_kind kind, uint64_t pages,
                               struct tw_predictor **predictor, struct tw_error *err)
{
    struct tw_predictor *p = calloc(1, sizeof *p);
    *predictor = NULL;
    if (p && kind == TW_PREDICTOR_SEQUENCE) {
        p->followers = malloc(FOLLOWERS * sizeof *p->followers);
        p->contexts = calloc(CONTEXTS, sizeof *p->contexts);
    }
    if (!p || (kind == TW_PREDICTOR_SEQUENCE && (!p->followers || !p->contexts))) {
        tw_predictor_close(p);
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, "predictor", NULL, NULL, "out of memory");
    }
    for (unsigned i = 0; p->followers && i < FOLLOWERS; i++)
        p->followers[i].page = NO_PAGE;
    p->kind = kind;
    p->pages = pages;
    p->last = NO_PAGE;
    for (unsigned i = 0; i < STREAMS; i++)
        p->streams[i].end = NO_PAGE;
    *predictor = p;
    return TW_OK;
}

void tw_predictor_close(struct tw_predictor *p)
{
    if (!p)
        return;
    free(p->followers);
    free(p->contexts);
    free(p);
}

/* ---- Spatial -------------------------------------------------------------------------------- */

static void guess_range(const struct tw_predictor *p, struct guesses *g, uint64_t from,
                        uint64_t end, uint64_t missed)
{
    for (uint64_t page = from; page < end && page < p->pages && g->count < TW_GUESSES_MAX; page++)
        if (page != missed)
            g->pages[g->count++] = page;
}

/* The stream that the miss goes on with: just behind its guesses, or a little further, since what
 * was there already is not missed. NULL: the miss begins one. */
static struct stream *stream_of(struct tw_predictor *p, uint64_t page)
{
    for (unsigned i = 0; i < STREAMS; i++) {
        struct stream *s = &p->streams[i];
        if (s->end != NO_PAGE && page >= s->end && page - s->end < BLOCK)
            return s;
    }
    return NULL;
}

static struct stream *oldest_stream(struct tw_predictor *p)
{
    struct stream *oldest = &p->streams[0];
    for (unsigned i = 1; i < STREAMS; i++)
        if (p->streams[i].used < oldest->used)
            oldest = &p->streams[i];
    return oldest;
}

static void guess_neighbours(struct tw_predictor *p, uint64_t page, struct guesses *g)
{
    struct stream *s = stream_of(p, page);
    if (s) {
        s->window = s->window * 2 < TW_GUESSES_MAX ? s->window * 2 : TW_GUESSES_MAX;
        guess_range(p, g, page + 1, page + 1 + s->window, page);
        s->end = page + 1 + s->window;
    } else {
        uint64_t block = page - page % BLOCK;
        s = oldest_stream(p);
        s->window = BLOCK;
        s->end = block + BLOCK;
        guess_range(p, g, page + 1, s->end, page);
        guess_range(p, g, block, page, page);
    }
    s->used = ++p->misses;
}

/* ---- Stride --------------------------------------------------------------------------------- */

static int64_t difference_ago(const struct tw_predictor *p, unsigned back)
{
    return p->differences[(p->misses - 1 - back) % HISTORY];
}

/* Boyer and Moore's vote among the last `count`, and the count that proves it; 0 = no majority. */
static int64_t majority(const struct tw_predictor *p, unsigned count)
{
    int64_t candidate = 0;
    unsigned votes = 0, agree = 0;
    for (unsigned i = 0; i < count; i++) {
        int64_t d = difference_ago(p, i);
        if (votes == 0)
            candidate = d;
        votes = d == candidate ? votes + 1 : votes - 1;
    }
    for (unsigned i = 0; i < count; i++)
        agree += difference_ago(p, i) == candidate;
    return agree * 2 > count ? candidate : 0;
}

static void learn_difference(struct tw_predictor *p, int64_t difference)
{
    p->differences[p->misses++ % HISTORY] = difference;
    p->known += p->known < HISTORY;
}

static void guess_stride(struct tw_predictor *p, uint64_t page, struct guesses *g)
{
    bool right = p->stride && page == p->expected;
    /* Pages that were guessed are not missed: the miss behind them is one more step, no leap. */
    learn_difference(p, right ? p->stride : (int64_t)(page - p->last));
    int64_t stride = 0;
    for (unsigned n = VOTE_MIN; stride == 0 && n <= p->known; n *= 2)
        stride = majority(p, n);
    p->depth = right && stride == p->stride ? p->depth * 2 : STRIDE_MIN;
    if (p->depth > TW_GUESSES_MAX)
        p->depth = TW_GUESSES_MAX;
    p->stride = stride;
    uint64_t at = page;
    for (unsigned i = 0; stride && i < p->depth; i++) {
        at += (uint64_t)stride;
        if (at >= p->pages) /* below zero, too */
            break;
        g->pages[g->count++] = at;
    }
    p->expected = page + (uint64_t)stride * (g->count + 1);
}

/* ---- Sequences ------------------------------------------------------------------------------ */

static uint64_t mixed(uint64_t x)
{
    x ^= x >> 31;
    x *= UINT64_C(0x9e3779b97f4a7c15);
    return x ^ x >> 29;
}

static struct follower *follower_of(const struct tw_predictor *p, uint64_t page)
{
    return &p->followers[mixed(page) % FOLLOWERS];
}

static struct context *context_of(const struct tw_predictor *p, int64_t before, int64_t last)
{
    return &p->contexts[mixed(mixed((uint64_t)before) + (uint64_t)last) % CONTEXTS];
}

static void learn_context(struct tw_predictor *p, const struct walk *w, int64_t difference)
{
    struct context *c = context_of(p, w->before, w->last);
    bool same = c->confidence && c->before == w->before && c->last == w->last;
    if (same && c->next == difference)
        c->confidence += c->confidence < CONFIDENCE;
    else if (c->confidence > 1)
        c->confidence--;
    else
        *c = (struct context){w->before, w->last, difference, 1};
}

static void walk_on(struct walk *w, uint64_t page)
{
    w->before = w->last;
    w->last = (int64_t)(page - w->page);
    w->page = page;
    w->known += w->known < 2;
}

static uint64_t next_of(const struct tw_predictor *p, const struct walk *w)
{
    const struct follower *f = follower_of(p, w->page);
    const struct context *c = context_of(p, w->before, w->last);
    if (f->page == w->page)
        return f->next;
    bool known = w->known == 2 && c->before == w->before && c->last == w->last;
    return known && c->confidence >= CONFIDENT ? w->page + (uint64_t)c->next : NO_PAGE;
}

static bool is_guessed(const struct guesses *g, uint64_t page)
{
    for (unsigned i = 0; i < g->count; i++)
        if (g->pages[i] == page)
            return true;
    return false;
}

static void learn_sequence(struct tw_predictor *p, uint64_t page)
{
    *follower_of(p, p->now.page) = (struct follower){p->now.page, page};
    if (p->now.known == 2)
        learn_context(p, &p->now, (int64_t)(page - p->now.page));
    walk_on(&p->now, page);
}

/* A miss where the guesses would have gone on shows that they were right; any other says nothing
 * of what came before it. */
static void find_place(struct tw_predictor *p, uint64_t page)
{
    if (!p->unseen) {
        learn_sequence(p, page);
    } else if (next_of(p, &p->tail) == page) {
        p->now = p->tail;
        walk_on(&p->now, page);
    } else {
        p->now = (struct walk){.page = page};
    }
}

/* Follows what is known, as if each guess were the next miss. */
static void guess_sequence(struct tw_predictor *p, uint64_t page, struct guesses *g)
{
    p->tail = p->now;
    while (g->count < CHAIN) {
        uint64_t next = next_of(p, &p->tail);
        if (next >= p->pages || next == page || is_guessed(g, next))
            break;
        g->pages[g->count++] = next;
        walk_on(&p->tail, next);
    }
    p->unseen = g->count > 0;
}

/* ---- The interface -------------------------------------------------------------------------- */

unsigned tw_predictor_miss(struct tw_predictor *p, uint64_t page, uint64_t guesses[TW_GUESSES_MAX])
{
    struct guesses g = {.pages = guesses};
    if (page >= p->pages || page == p->last)
        return 0;
    bool first = p->last == NO_PAGE;
    if (p->kind == TW_PREDICTOR_SPATIAL) {
        guess_neighbours(p, page, &g);
    } else if (p->kind == TW_PREDICTOR_STRIDE && !first) {
        guess_stride(p, page, &g);
    } else if (p->kind == TW_PREDICTOR_SEQUENCE) {
        if (first)
            p->now.page = page;
        else
            find_place(p, page);
        guess_sequence(p, page, &g);
    }
    p->last = page;
    return g.count;
}

void tw_predictor_touch(struct tw_predictor *p, uint64_t page)
{
    if (page >= p->pages || page == p->last || p->last == NO_PAGE)
        return;
    if (p->kind == TW_PREDICTOR_STRIDE)
        learn_difference(p, (int64_t)(page - p->last));
    if (p->kind == TW_PREDICTOR_SEQUENCE)
        learn_sequence(p, page);
    p->unseen = false;
    p->last = page;
}
