#include "bench/predictors/replay.h"

#include "base/clock.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

struct model {
    struct tw_foresight foresight;
    struct tw_line_set to_come;
    uint64_t *arrives_ns; /* by page; 0 = not sent */
    uint8_t *touched;     /* by page */
    uint64_t page_ns, half_trip_ns;
    uint64_t now_ns, link_free_ns;
    struct bench_replay *out;
};

static void send_page(struct model *m, uint64_t page, uint64_t from_ns)
{
    uint64_t start = from_ns > m->link_free_ns ? from_ns : m->link_free_ns;
    tw_line_set_take(&m->to_come, page, TW_ALL_LINES);
    m->link_free_ns = start + m->page_ns;
    m->arrives_ns[page] = m->link_free_ns + m->half_trip_ns;
}

/* Lets the source send what was named, as far as the link was free before now. */
static void send_ahead(struct model *m, uint64_t since_ns)
{
    uint64_t page;
    while (m->link_free_ns < m->now_ns && tw_foresight_next(&m->foresight, &m->to_come, &page)) {
        send_page(m, page, since_ns);
        m->out->ahead++;
    }
}

static void touch(struct model *m, uint64_t page)
{
    uint64_t asked_ns = m->now_ns + m->half_trip_ns;
    if (m->touched[page])
        return;
    m->touched[page] = 1;
    m->out->touches++;
    bool sent = m->arrives_ns[page] != 0;
    if (sent && m->arrives_ns[page] <= m->now_ns)
        return;
    if (!sent)
        send_page(m, page, asked_ns);
    ++*(sent ? &m->out->late : &m->out->misses);
    tw_foresight_miss(&m->foresight, page, false);
    m->out->wait_ns += m->arrives_ns[page] - m->now_ns;
    m->now_ns = m->arrives_ns[page];
}

static void play(struct model *m, const struct tw_miss *misses, uint64_t count)
{
    uint64_t went_on_ns = 0; /* the recorded guest */
    for (uint64_t i = 0; i < count; i++) {
        uint64_t at_ns = misses[i].at_ns, since_ns = m->now_ns;
        m->now_ns += at_ns > went_on_ns ? at_ns - went_on_ns : 0;
        if (at_ns + misses[i].waited_ns > went_on_ns)
            went_on_ns = at_ns + misses[i].waited_ns;
        send_ahead(m, since_ns);
        touch(m, misses[i].line / TW_LINES_PER_PAGE);
    }
    m->out->total_ns = m->now_ns;
}

enum tw_code bench_replay_run(const struct tw_miss_header *header, const struct tw_miss *misses,
                              enum tw_foresight_choice choice, const struct bench_replay_link *link,
                              struct bench_replay *out, struct tw_error *err)
{
    struct model m = {.out = out,
                      .page_ns = TW_PAGE_SIZE * TW_SEC / link->bytes_per_s,
                      .half_trip_ns = link->round_trip_ns / 2};
    *out = (struct bench_replay){0};
    m.arrives_ns = calloc(header->pages, sizeof *m.arrives_ns);
    m.touched = calloc(header->pages, 1);
    enum tw_code code = TW_OK;
    if (!m.arrives_ns || !m.touched)
        code = tw_fail_errno(err, ENOMEM, "recording", "no memory to play it");
    if (code == TW_OK)
        code = tw_line_set_open(&m.to_come, header->pages, err);
    if (code == TW_OK)
        code = tw_foresight_open(&m.foresight, choice, header->pages, err);
    for (uint64_t p = 0; code == TW_OK && p < header->pages; p++)
        tw_line_set_add(&m.to_come, p, TW_ALL_LINES);
    if (code == TW_OK)
        play(&m, misses, header->count);
    tw_foresight_close(&m.foresight);
    tw_line_set_close(&m.to_come);
    free(m.arrives_ns);
    free(m.touched);
    return code;
}

static double percent(uint64_t part, uint64_t whole)
{
    return whole ? 100.0 * (double)part / (double)whole : NAN;
}

static uint64_t in_time(const struct bench_replay *r)
{
    return r->touches - r->misses - r->late;
}

double bench_replay_accuracy(const struct bench_replay *r)
{
    return percent(in_time(r) + r->late, r->ahead);
}

double bench_replay_coverage(const struct bench_replay *r)
{
    return percent(in_time(r), r->touches);
}

double bench_replay_timeliness(const struct bench_replay *r)
{
    return percent(in_time(r), in_time(r) + r->late);
}
