#include "services/migration/meter.h"

#include <string.h>

#define SAMPLE_BYTES     (UINT64_C(8) << 20)
#define SAMPLE_BYTES_MIN (UINT64_C(4) << 20) /* less may have gone into buffers only */
#define SAMPLE_NS_MIN    TW_MS
#define GROUP_BYTES_MIN  (UINT64_C(256) << 10) /* consumed by the peer: no buffer is in the way */

void tw_meter_init(struct tw_meter *m, uint64_t memory_bytes, uint64_t now_ns)
{
    memset(m, 0, sizeof *m);
    m->p.memory_bytes = memory_bytes;
    m->start_ns = now_ns;
    m->sample_ns = now_ns;
    m->bucket = now_ns / TW_METER_BUCKET_NS;
}

void tw_meter_end(struct tw_meter *m, uint64_t now_ns)
{
    if (m->end_ns == 0)
        m->end_ns = now_ns;
    m->p.total_ns = m->end_ns - m->start_ns;
}

void tw_meter_round_begin(struct tw_meter *m, uint32_t index, bool final, uint64_t now_ns)
{
    if (m->p.round_count < TW_MIGRATION_ROUNDS_MAX)
        m->p.rounds[m->p.round_count++] = (struct tw_round){0};
    struct tw_round *r = tw_meter_round(m);
    r->index = index;
    r->final = final;
    m->round_start_ns = now_ns;
    m->round_earlier_ns = r->duration_ns;
    tw_meter_idle(m, now_ns);
}

struct tw_round *tw_meter_round(struct tw_meter *m)
{
    return &m->p.rounds[m->p.round_count ? m->p.round_count - 1 : 0];
}

/* A faster sample is believed at once, a slower one by a quarter: the link may have been waiting
 * for us. */
static void take_sample(struct tw_meter *m, uint64_t bytes_min, uint64_t ns_min, uint64_t now_ns)
{
    uint64_t ns = now_ns - m->sample_ns;
    if (m->sample_bytes >= bytes_min && ns >= ns_min) {
        uint64_t rate = (uint64_t)((unsigned __int128)m->sample_bytes * TW_SEC / ns);
        m->link_rate = rate > m->link_rate ? rate : m->link_rate - (m->link_rate - rate) / 4;
    }
    m->sample_bytes = 0;
    m->sample_ns = now_ns;
}

void tw_meter_round_end(struct tw_meter *m, uint64_t now_ns)
{
    tw_meter_round(m)->duration_ns = m->round_earlier_ns + (now_ns - m->round_start_ns);
    take_sample(m, SAMPLE_BYTES_MIN, SAMPLE_NS_MIN, now_ns);
}

void tw_meter_idle(struct tw_meter *m, uint64_t now_ns)
{
    m->sample_bytes = 0;
    m->sample_ns = now_ns;
    m->held_back = false;
}

void tw_meter_held_back(struct tw_meter *m, uint64_t unconfirmed, uint64_t now_ns)
{
    m->held_back = true;
    if (m->sample_bytes == 0 || unconfirmed > m->sample_bytes / 2)
        return;
    m->sample_bytes -= unconfirmed;
    take_sample(m, GROUP_BYTES_MIN, 1, now_ns);
}

static void turn_buckets(struct tw_meter *m, uint64_t now_ns)
{
    uint64_t newest = now_ns / TW_METER_BUCKET_NS;
    for (unsigned n = 0; m->bucket < newest && n < TW_METER_BUCKETS; n++)
        m->buckets[++m->bucket % TW_METER_BUCKETS] = 0;
    if (m->bucket < newest)
        m->bucket = newest;
}

void tw_meter_sent(struct tw_meter *m, uint64_t bytes, uint64_t now_ns)
{
    turn_buckets(m, now_ns);
    if (m->held_back)
        tw_meter_idle(m, now_ns);
    m->buckets[m->bucket % TW_METER_BUCKETS] += bytes;
    m->sample_bytes += bytes;
    if (m->sample_bytes >= SAMPLE_BYTES)
        take_sample(m, SAMPLE_BYTES_MIN, SAMPLE_NS_MIN, now_ns);
}

uint64_t tw_meter_rate(const struct tw_meter *m, uint64_t now_ns)
{
    uint64_t oldest = now_ns / TW_METER_BUCKET_NS;
    oldest = oldest >= TW_METER_BUCKETS ? oldest - TW_METER_BUCKETS + 1 : 0;
    uint64_t bytes = 0;
    for (unsigned n = 0; n < TW_METER_BUCKETS && m->bucket >= n; n++)
        if (m->bucket - n >= oldest)
            bytes += m->buckets[(m->bucket - n) % TW_METER_BUCKETS];
    uint64_t since = oldest * TW_METER_BUCKET_NS;
    if (since < m->start_ns)
        since = m->start_ns;
    uint64_t ns = now_ns > since ? now_ns - since : 0;
    return ns ? (uint64_t)((unsigned __int128)bytes * TW_SEC / ns) : 0;
}

uint64_t tw_page_cost(bool zero)
{
    return zero ? 8 : TW_PAGE_SIZE + 8;
}
