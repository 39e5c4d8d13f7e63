#include "services/migration/measure.h"

#include "fabric/record.h"
#include "fpga-model/device.h"
#include "services/migration/line_hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EPOCHS        5u                  /* half of the time, a quarter, ... */
#define SCAN_BYTES    (UINT64_C(1) << 20) /* looked at in a step */
#define SCAN_MAX      (UINT64_C(1) << 30) /* looked at in all: of a larger one every so many pages */
#define SCAN_PAUSE_NS (2 * TW_MS)         /* between two of these: the data thread has other work */
#define SAMPLES_MAX   (SCAN_MAX / SCAN_BYTES + 2)
#define TABLE_PAGES   8192u /* compared with; 4 MiB of hashes, more than a core keeps at hand */

struct tw_measure {
    const struct tw_clock *clock;
    char name[80];
    struct tw_measured result;
    uint64_t start_ns, end_ns, for_ns;
    uint64_t written_before;
    /* The present epoch. */
    unsigned epoch, index;
    uint64_t epoch_ns, epoch_end_ns;
    bool done;
    /* The scan over memory. */
    uint64_t page, every;
    struct tw_line_hashes table;      /* of nothing in particular: a comparison is timed with it */
    uint32_t compare_ns[SAMPLES_MAX]; /* a page, of each step */
    unsigned compared;                /* steps */
    uint64_t data_end;                /* page behind the data range under way */
    bool scanned;
    struct tw_chunk_writer writer;
    uint8_t payload[TW_CHUNK_PAYLOAD];
};

/* ---- Epochs ---------------------------------------------------------------------------------- */

static uint64_t written(const struct tw_host *host)
{
    struct tw_device_counters c;
    tw_device_counters_get(host->device, &c);
    return c.messages[TW_MEM_WR] + c.messages[TW_MEM_WR_KEEP];
}

static enum tw_code epoch_begin(struct tw_measure *m, const struct tw_host *host, uint64_t now_ns,
                                struct tw_error *err)
{
    struct tw_range all = {0, host->memory_bytes};
    const struct tw_tracker_config config = {.name = m->name, .ranges = &all, .range_count = 1};
    struct tw_tracker *tracker;
    host->ops->sync(host->ctx); /* what was written before is none of this epoch's */
    unsigned parts = m->epoch + 1 < EPOCHS ? m->epoch + 1 : EPOCHS - 1;
    m->epoch_ns = now_ns;
    m->epoch_end_ns = tw_after(now_ns, m->for_ns >> parts);
    m->index = 0;
    return tw_tracker_start(host->device, &config, &tracker, err);
}

static void sample(struct tw_measure *m, const struct tw_host *host, struct tw_tracker *tracker,
                   uint64_t now_ns)
{
    struct tw_tracker_stats stats;
    host->ops->sync(host->ctx);
    tw_tracker_sweep(tracker);
    tw_tracker_stats_get(tracker, &stats);
    /* Samples that were missed are not made up: this one belongs to the last that is due. */
    while (m->index + 1 < TW_CURVE_SAMPLES &&
           tw_dirty_curve_due_ns(m->index + 1) <= now_ns - m->epoch_ns)
        m->index++;
    tw_dirty_curve_add(&m->result.curve, m->index++, now_ns - m->epoch_ns, stats.dirty_lines,
                       stats.dirty_pages);
    if (m->epoch == 0) {
        m->result.working_set_lines = stats.dirty_lines;
        m->result.working_set_pages = stats.dirty_pages;
    }
}

static void finish(struct tw_measure *m, const struct tw_host *host, uint64_t now_ns)
{
    uint64_t ns = now_ns - m->start_ns;
    m->done = true;
    m->end_ns = now_ns;
    m->result.duration_ns = ns;
    if (host && host->device && ns)
        m->result.write_backs_per_s =
            (uint64_t)((unsigned __int128)(written(host) - m->written_before) * TW_SEC / ns);
}

/* When the epoch is looked at next. */
static uint64_t next_look(const struct tw_measure *m)
{
    uint64_t due = tw_after(m->epoch_ns, tw_dirty_curve_due_ns(m->index));
    return due < m->epoch_end_ns ? due : m->epoch_end_ns;
}

static void epochs_step(struct tw_measure *m, const struct tw_host *host, uint64_t now_ns)
{
    struct tw_tracker *tracker = tw_tracker_find(host->device, m->name);
    if (m->epoch == EPOCHS || now_ns < next_look(m))
        return;
    if (tracker)
        sample(m, host, tracker, now_ns);
    if (now_ns < m->epoch_end_ns)
        return;
    tw_tracker_stop(tracker);
    if (++m->epoch < EPOCHS && epoch_begin(m, host, now_ns, NULL) != TW_OK)
        m->epoch = EPOCHS; /* no more trackers: what was seen has to do */
}

/* ---- What a full copy would cost --------------------------------------------------------------
 */

static void count_payload(struct tw_measure *m)
{
    m->result.full_copy_bytes += m->writer.length * m->every;
    tw_chunk_writer_init(&m->writer, m->payload);
}

/* As it is done while the VM stands. Before the page is looked at for anything else, which would
 * leave it in the cache. */
static uint64_t compare_ns(const struct tw_measure *m, const uint8_t *bytes, uint64_t page)
{
    uint64_t digest = 0, before_ns = tw_now(m->clock);
    (void)tw_line_hashes_compare(&m->table, page % TABLE_PAGES, bytes, &digest);
    return tw_now(m->clock) - before_ns;
}

/* Returns what its comparison took. */
static uint64_t look_at(struct tw_measure *m, const struct tw_host *host, uint64_t page)
{
    const uint8_t *bytes = host->memory + page * TW_PAGE_SIZE;
    uint64_t took_ns = compare_ns(m, bytes, page);
    m->result.data_bytes += TW_PAGE_SIZE * m->every;
    uint64_t lines = TW_ALL_LINES;
    while ((lines = tw_chunk_writer_add(&m->writer, page * TW_PAGE_SIZE, bytes, lines)))
        count_payload(m);
    return took_ns;
}

/* The next page that is no hole; false at the end. */
static bool next_page(struct tw_measure *m, const struct tw_host *host)
{
    uint64_t pages = host->memory_bytes / TW_PAGE_SIZE;
    if (m->page < m->data_end)
        return true;
    struct tw_range r = host->ops->next_data(host->ctx, m->page * TW_PAGE_SIZE);
    if (m->page >= pages || r.length == 0 || r.start >= host->memory_bytes)
        return false;
    uint64_t first = r.start / TW_PAGE_SIZE, length = r.length / TW_PAGE_SIZE;
    m->page = first > m->page ? first : m->page;
    m->data_end = length < pages - first ? first + length : pages;
    if (m->data_end <= m->page)
        m->data_end = m->page + 1;
    return m->page < pages;
}

static int by_size(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* The mean, without those that took far longer than the middle one: a step in which the guest or
 * somebody else had the processor says nothing about the time in which the guest stands still. */
static void judge_compare(struct tw_measure *m)
{
    uint64_t sum_ns = 0, count = 0;
    tw_line_hashes_close(&m->table);
    if (m->compared == 0)
        return;
    qsort(m->compare_ns, m->compared, sizeof m->compare_ns[0], by_size);
    uint64_t most_ns = (uint64_t)m->compare_ns[m->compared / 2] * 3 / 2;
    for (; count < m->compared && m->compare_ns[count] <= most_ns; count++)
        sum_ns += m->compare_ns[count];
    m->result.compare_bytes_per_s = count * TW_PAGE_SIZE * TW_SEC / sum_ns;
}

static void scan_step(struct tw_measure *m, const struct tw_host *host)
{
    uint64_t took_ns = 0, done = 0;
    for (; done < SCAN_BYTES; done += TW_PAGE_SIZE) {
        if (!next_page(m, host)) {
            count_payload(m);
            m->scanned = true;
            break;
        }
        took_ns += look_at(m, host, m->page);
        m->page += m->every;
    }
    uint64_t a_page_ns = done ? took_ns / (done / TW_PAGE_SIZE) : 0;
    if (a_page_ns && m->compared < SAMPLES_MAX)
        m->compare_ns[m->compared++] = a_page_ns < UINT32_MAX ? (uint32_t)a_page_ns : UINT32_MAX;
    if (m->scanned)
        judge_compare(m);
}

/* ---- From outside -----------------------------------------------------------------------------
 */

enum tw_code tw_measure_start(const struct tw_clock *clock, const struct tw_host *host,
                              const char *name, uint64_t for_ns, struct tw_measure **measure,
                              struct tw_error *err)
{
    if (!host->device)
        return tw_fail(err, TW_FAILED_PRECONDITION, name, NULL, NULL,
                       "the VM has no device that tracks its lines");
    if (for_ns < TW_MEASURE_NS_MIN || for_ns > TW_MEASURE_NS_MAX)
        return tw_fail(err, TW_INVALID_ARGUMENT, name, "100 ms to 60 s", NULL,
                       "cannot measure for that long");
    struct tw_measure *m = calloc(1, sizeof *m);
    if (!m)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, name, NULL, NULL, "no memory");
    m->clock = clock;
    m->for_ns = for_ns;
    m->start_ns = tw_now(clock);
    m->every = (host->memory_bytes + SCAN_MAX - 1) / SCAN_MAX;
    snprintf(m->name, sizeof m->name, "measure-%s", name);
    tw_chunk_writer_init(&m->writer, m->payload);
    enum tw_code code = tw_line_hashes_open(&m->table, TABLE_PAGES * TW_PAGE_SIZE, err);
    if (code == TW_OK)
        code = epoch_begin(m, host, m->start_ns, err);
    if (code != TW_OK) {
        tw_line_hashes_close(&m->table);
        free(m);
        return code;
    }
    memset(m->table.of_line, 0xff, TABLE_PAGES * TW_LINES_PER_PAGE * sizeof *m->table.of_line);
    m->written_before = written(host);
    *measure = m;
    return TW_OK;
}

uint64_t tw_measure_step(struct tw_measure *m, const struct tw_host *host)
{
    uint64_t now_ns = tw_now(m->clock);
    if (m->done)
        return TW_NEVER;
    epochs_step(m, host, now_ns);
    if (!m->scanned)
        scan_step(m, host);
    if (m->epoch == EPOCHS && m->scanned) {
        finish(m, host, now_ns);
        return TW_NEVER;
    }
    uint64_t look = m->epoch < EPOCHS ? next_look(m) : TW_NEVER;
    uint64_t scan = m->scanned ? TW_NEVER : tw_after(now_ns, SCAN_PAUSE_NS);
    return look < scan ? look : scan;
}

uint64_t tw_measure_left_ns(const struct tw_measure *m)
{
    uint64_t end_ns = tw_after(m->start_ns, m->for_ns), now_ns = tw_now(m->clock);
    if (m->done)
        return 0;
    return end_ns > now_ns ? end_ns - now_ns : 1;
}

void tw_measure_result(const struct tw_measure *m, struct tw_measured *out)
{
    *out = m->result;
}

void tw_measure_free(struct tw_measure *m, const struct tw_host *host)
{
    if (!m)
        return;
    if (host && host->device)
        tw_tracker_stop(tw_tracker_find(host->device, m->name));
    tw_line_hashes_close(&m->table);
    free(m);
}
