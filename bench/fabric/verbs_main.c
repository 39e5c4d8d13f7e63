/* towline-bench-verbs: the verbs path beside perftest's, between the two devices of the machine of
 * tests/rdma. scripts/bench runs it there. */
#include "bench/fabric/perftest.h"
#include "bench/fabric/verbs_ours.h"
#include "bench/median.h"
#include "bench/options.h"
#include "bench/report.h"
#include "fabric/record.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define WRITES 300u
#define READS  500u

static const struct bench_choice cases[] = {
    {"verbs_write", "full chunks, one behind the other, beside ib_write_bw"},
    {"verbs_read", "one-sided reads of 64 bytes and 4 KiB, beside ib_read_lat"},
};
enum { VERBS_WRITE, VERBS_READ, CASES };

struct measurement {
    unsigned of_case;
    const char *metric, *unit;
    uint32_t length; /* bytes of a write or read */
};
static const struct measurement measurements[] = {
    {VERBS_WRITE, "throughput", "B/s", TW_CHUNK_PAYLOAD},
    {VERBS_READ, "latency_64", "us", 64},
    {VERBS_READ, "latency_4096", "us", 4096},
};

static struct bench_choice choice(size_t index)
{
    return cases[index];
}

static const struct bench_suite suite = {.program = "towline-bench-verbs",
                                         .bench = "fabric",
                                         .runs_default = 3,
                                         .runs_min = 1,
                                         .case_count = CASES,
                                         .choice = choice};

struct setting {
    struct bench_perftest perftest;
    const char *source; /* numeric address to connect from */
    unsigned runs;
};

static enum tw_code ours(const struct setting *s, const struct measurement *m,
                         const struct bench_server *server, double *value, struct tw_error *err)
{
    return m->of_case == VERBS_WRITE
               ? bench_ours_write(server, s->source, WRITES, value, err)
               : bench_ours_read(server, s->source, READS, m->length, value, err);
}

static enum tw_code theirs(const struct setting *s, const struct measurement *m, double *value,
                           struct tw_error *err)
{
    return m->of_case == VERBS_WRITE
               ? bench_perftest_write(&s->perftest, m->length, WRITES, value, err)
               : bench_perftest_read(&s->perftest, m->length, READS, value, err);
}

/* Both in turn, so that what the machine does besides hits both. */
static enum tw_code measure(const struct setting *s, const struct measurement *m,
                            const struct bench_server *server, json_t *rows, struct tw_error *err)
{
    const char *name = cases[m->of_case].name;
    double a[BENCH_RUNS_MAX], b[BENCH_RUNS_MAX];
    for (unsigned i = 0; i < s->runs; i++) {
        enum tw_code code = ours(s, m, server, &a[i], err);
        if (!code)
            code = theirs(s, m, &b[i], err);
        if (code)
            return code;
    }
    const double our = bench_median(a, s->runs), their = bench_median(b, s->runs);
    const double ratio = bench_ratio(our, their, m->of_case == VERBS_WRITE);
    printf("%-12s %-14s %14.1f %14.1f %-4s %6.2f\n", name, m->metric, our, their, m->unit, ratio);
    fflush(stdout);
    json_array_append_new(
        rows, bench_row(suite.bench, name, m->metric, m->unit, our, "perftest", their, ratio));
    return TW_OK;
}

static enum tw_code measure_all(const struct setting *s, const bool *wanted, json_t *rows,
                                struct tw_error *err)
{
    struct bench_server server = {0};
    enum tw_code code = bench_server_start(s->perftest.address, &server, err);
    if (code)
        return code;
    printf("%-12s %-14s %14s %14s %-4s %6s\n", "case", "metric", "ours", "perftest", "", "ratio");
    for (unsigned i = 0; i < sizeof measurements / sizeof *measurements && !code; i++)
        if (wanted[measurements[i].of_case])
            code = measure(s, &measurements[i], &server, rows, err);
    bench_server_stop(&server);
    return code;
}

/* What the machine of tests/rdma says of its devices. */
static bool find_devices(struct setting *s)
{
    static char devices[2][32];
    const char *kind = getenv("TOWLINE_RDMA_KIND");
    s->perftest.address = getenv("TOWLINE_VERBS_ADDRESS");
    s->source = getenv("TOWLINE_VERBS_SOURCE");
    for (unsigned i = 0; i < 2 && kind; i++)
        snprintf(devices[i], sizeof devices[i], "%.20s%u", kind, i);
    s->perftest.server_device = devices[0];
    s->perftest.client_device = devices[1];
    return kind && s->perftest.address && s->source;
}

int main(int argc, char **argv)
{
    struct bench_options o;
    struct setting s = {0};
    struct tw_error err = {0};
    char text[600];
    const int status = bench_options_parse(&suite, argc, argv, &o);
    if (status >= 0)
        return status;
    s.runs = o.runs;
    if (!find_devices(&s)) {
        fprintf(stderr, "%s: no devices: run it by tests/rdma/machine\n", suite.program);
        return 1;
    }
    json_t *rows = json_array();
    if (measure_all(&s, o.wanted, rows, &err)) {
        fprintf(stderr, "%s: %s\n", suite.program, tw_error_text(&err, text, sizeof text));
        json_decref(rows);
        return 1;
    }
    return bench_options_finish(&suite, &o, rows);
}
