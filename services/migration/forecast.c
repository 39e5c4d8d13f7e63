#include "services/migration/forecast.h"

#include "fabric/record.h"
#include "services/migration/convergence.h"

#define ROUND_INTERVAL_NS (10 * TW_MS)  /* between two collections, as in the source */
#define CONTROL_BYTES     512u          /* what both sides say beside lines */
#define REST_CHUNK        (16u << 10)   /* lines that follow go in smaller chunks */
#define FETCH_MIN_NS      TW_MS         /* last words, even when all lines are there already */
#define FAULT_NS          (150 * TW_US) /* a page that the guest waits for */

struct tw_fixed_costs tw_fixed_costs_default(void)
{
    const struct tw_method_costs whole = {
        .last_lines_ns = TW_MS, .load_ns = 9 * TW_MS, .hand_over_ns = 4 * TW_MS};
    struct tw_method_costs guarded = whole; /* the memory is put under guard before the load */
    guarded.load_ns = 15 * TW_MS;
    return (struct tw_fixed_costs){
        .start_ns = 20 * TW_MS,
        .stop_ns = TW_MS,
        .save_ns = 10 * TW_MS,
        .of = {[TW_METHOD_PRE_COPY] = whole,
               [TW_METHOD_HYBRID] = guarded,
               [TW_METHOD_POST_COPY] = guarded},
        .compare_bytes_per_s = TW_COMPARE_RATE,
        .device_state_bytes = UINT64_C(300) << 10,
    };
}

/* The walk: where in time, and what was sent. */
struct walk {
    const struct tw_forecast_input *in;
    struct tw_migration_limits limits;
    uint64_t pages, rate, bytes, at_ns;
};

static struct tw_dirt dirt(const struct walk *w, uint64_t ns)
{
    return tw_dirty_curve_at(&w->in->curve, ns, w->pages);
}

static uint64_t cost(struct tw_dirt d)
{
    return tw_dirty_cost(d.pages, d.lines);
}

/* With the headers of its chunks. */
static uint64_t on_wire(uint64_t bytes, uint64_t chunk)
{
    return bytes ? bytes + (bytes + chunk - 1) / chunk * sizeof(struct tw_chunk_header) : 0;
}

static uint64_t send(struct walk *w, uint64_t bytes, uint64_t rate)
{
    w->bytes += bytes;
    uint64_t ns = tw_send_ns(bytes, rate);
    w->at_ns = tw_after(w->at_ns, ns);
    return ns;
}

static uint64_t longer(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* ---- The part in which the VM runs -----------------------------------------------------------
 */

struct rounds {
    struct tw_convergence c;
    uint64_t epoch_ns; /* how long the present epoch has been open at the judgement */
    bool compared;     /* what nobody reports was looked for in the background */
    enum tw_verdict verdict;
};

static enum tw_verdict judge(struct walk *w, struct rounds *r, bool hybrid)
{
    struct tw_convergence *c = &r->c;
    c->dirty_bytes = cost(dirt(w, r->epoch_ns));
    c->forecast = cost(dirt(w, tw_send_ns(c->dirty_bytes, c->rate)));
    c->forecast_known = true;
    return hybrid ? tw_converge_hybrid(c, false) : tw_converge(c);
}

static void send_round(struct walk *w, struct rounds *r)
{
    struct tw_convergence *c = &r->c;
    uint64_t round = c->dirty_bytes;
    uint64_t ns = send(w, on_wire(round, TW_CHUNK_PAYLOAD), w->rate);
    r->epoch_ns = longer(ns, ROUND_INTERVAL_NS);
    w->at_ns = tw_after(w->at_ns, r->epoch_ns - ns);
    c->stalled = c->last_round && round >= c->last_round - c->last_round / 8 ? c->stalled + 1 : 0;
    c->round_before = c->last_round;
    c->last_round = round;
    c->rounds++;
}

/* True when it is to look for unreported writes first, and has done so. */
static bool background_compare(struct walk *w, struct rounds *r)
{
    if (w->in->sees_all_writers || r->compared)
        return false;
    uint64_t ns = tw_send_ns(w->in->data_bytes, w->in->fixed.compare_bytes_per_s);
    w->at_ns = tw_after(w->at_ns, ns);
    r->epoch_ns = tw_after(r->epoch_ns, ns);
    r->compared = true;
    return true;
}

static void copy_and_rounds(struct walk *w, bool hybrid, struct rounds *r)
{
    const struct tw_forecast_input *in = w->in;
    bool compares = !w->limits.skip_verify || !in->sees_all_writers;
    uint64_t pass_ns = tw_send_ns(in->data_bytes, in->fixed.compare_bytes_per_s);
    uint64_t fixed_ns = tw_fixed_downtime_ns(in->data_bytes, pass_ns, compares);
    *r = (struct rounds){.c = {.rate = in->link_bytes_per_s,
                               .budget_ns = tw_budget_for_lines_ns(w->limits.downtime_ns, fixed_ns),
                               .max_rounds = w->limits.max_rounds,
                               .policy = w->limits.on_no_convergence}};
    uint64_t copy_ns = send(w, on_wire(in->full_copy_bytes, TW_CHUNK_PAYLOAD), w->rate);
    r->epoch_ns = longer(copy_ns, ROUND_INTERVAL_NS);
    for (unsigned n = 0; n <= 2 * TW_MIGRATION_ROUNDS_MAX; n++) {
        r->verdict = judge(w, r, hybrid);
        if (r->verdict == TW_VERDICT_ROUND)
            send_round(w, r);
        else if (r->verdict == TW_VERDICT_NO_CONVERGENCE || !background_compare(w, r))
            return;
    }
}

/* ---- The part in which it stands -------------------------------------------------------------
 */

/* `lines_ns`: what the final pass sends, beside comparing. `rest`: bytes that follow; a mirror gets
 * them from the end of the final pass on, as fast as the path takes them, beside the device state.
 */
static void stand_still(struct walk *w, uint64_t lines_ns, uint64_t rest, bool compares,
                        struct tw_forecast *out)
{
    const struct tw_fixed_costs *f = &w->in->fixed;
    const struct tw_method_costs *m = &f->of[out->method];
    uint64_t pass_ns = tw_after(f->of[out->method].last_lines_ns, lines_ns);
    if (compares)
        pass_ns = tw_after(pass_ns, tw_send_ns(w->in->data_bytes, f->compare_bytes_per_s));
    uint64_t saved_ns = longer(pass_ns, f->save_ns); /* the host saves meanwhile */
    uint64_t loaded_ns = tw_after(saved_ns, m->load_ns), kept_ns = 0;
    if (w->in->mirrored)
        kept_ns =
            tw_after(pass_ns, tw_send_ns(on_wire(rest, TW_CHUNK_PAYLOAD), w->in->link_bytes_per_s));
    out->mirror_ns = kept_ns > loaded_ns ? kept_ns - loaded_ns : 0;
    out->downtime_ns = tw_after(longer(loaded_ns, kept_ns), f->stop_ns + m->hand_over_ns);
    w->at_ns = tw_after(w->at_ns, out->downtime_ns);
    w->bytes += on_wire(f->device_state_bytes, TW_CHUNK_PAYLOAD);
}

/* First writes of pages that are not there yet: each takes as long as a fetch instead of nothing.
 * So long as `ns` they would be `touched` of which about half have come, if nothing else held them.
 */
static uint32_t slow_down(uint64_t touched, uint64_t absent, uint64_t ns)
{
    uint64_t waits = (touched < absent ? touched : absent) / 2;
    if (ns == 0 || waits == 0)
        return 0;
    unsigned __int128 waited = (unsigned __int128)waits * FAULT_NS;
    return (uint32_t)(waited * 1000 / (waited + ns));
}

/* Lines that follow begin to flow when the destination is prepared, before the VM resumes. */
static void follow(struct walk *w, uint64_t bytes, uint64_t pages, struct tw_forecast *out)
{
    uint64_t wire = on_wire(bytes, REST_CHUNK), ns = tw_send_ns(wire, w->rate);
    uint64_t ahead_ns = w->in->fixed.of[out->method].hand_over_ns;
    w->bytes += wire;
    if (ns == 0)
        return;
    out->fetch_ns = longer(ns > ahead_ns ? ns - ahead_ns : 0, FETCH_MIN_NS);
    w->at_ns = tw_after(w->at_ns, out->fetch_ns);
    uint64_t left = ns > ahead_ns ? (uint64_t)((unsigned __int128)pages * out->fetch_ns / ns) : 0;
    out->slow_down_permille = slow_down(dirt(w, out->fetch_ns).pages, left, out->fetch_ns);
}

static void pre_copy(struct walk *w, struct tw_forecast *out)
{
    struct rounds r;
    copy_and_rounds(w, false, &r);
    struct tw_dirt last = dirt(w, r.epoch_ns);
    uint64_t bytes = on_wire(cost(last), TW_CHUNK_PAYLOAD);
    out->rounds = r.c.rounds;
    out->converges = r.verdict == TW_VERDICT_STOP;
    out->final_lines = last.lines;
    w->bytes += bytes;
    stand_still(w, tw_send_ns(bytes, w->in->link_bytes_per_s), 0,
                !w->limits.skip_verify || !w->in->sees_all_writers, out);
}

static void hybrid(struct walk *w, struct tw_forecast *out)
{
    struct rounds r;
    copy_and_rounds(w, true, &r);
    struct tw_dirt rest = dirt(w, r.epoch_ns);
    uint64_t map = on_wire(rest.pages * sizeof(struct tw_record_header), TW_CHUNK_PAYLOAD);
    out->rounds = r.c.rounds;
    out->lines_to_come = rest.lines;
    w->bytes += map;
    stand_still(w, tw_send_ns(map, w->in->link_bytes_per_s), cost(rest),
                !w->limits.skip_verify || !w->in->sees_all_writers, out);
    follow(w, cost(rest), rest.pages, out);
}

static void post_copy(struct walk *w, struct tw_forecast *out)
{
    out->lines_to_come = w->in->data_bytes / TW_LINE_SIZE;
    stand_still(w, 0, w->in->full_copy_bytes, false, out);
    follow(w, w->in->full_copy_bytes, w->in->data_bytes / TW_PAGE_SIZE, out);
}

void tw_forecast_make(const struct tw_forecast_input *in, enum tw_migration_method method,
                      struct tw_forecast *out)
{
    struct tw_migration_limits limits = tw_limits_complete(in->limits);
    uint64_t limit = limits.bandwidth_bytes_per_s, link = in->link_bytes_per_s;
    struct walk w = {.in = in,
                     .limits = limits,
                     .pages = in->memory_bytes / TW_PAGE_SIZE,
                     .rate = limit && limit < link ? limit : link,
                     .bytes = CONTROL_BYTES,
                     .at_ns = in->fixed.start_ns};
    *out = (struct tw_forecast){.method = method, .converges = true};
    if (method == TW_METHOD_PRE_COPY)
        pre_copy(&w, out);
    else if (method == TW_METHOD_HYBRID)
        hybrid(&w, out);
    else
        post_copy(&w, out);
    out->bytes = w.bytes;
    out->total_ns = w.at_ns;
}

int64_t tw_forecast_error_percent(uint64_t said, uint64_t was)
{
    if (was == 0)
        return said ? 100 : 0;
    __int128 error = ((__int128)said - was) * 100 / was;
    return error > INT32_MAX ? INT32_MAX : (int64_t)error;
}
