/* towline-bench-verbs: the verbs path beside perftest's, between the two devices of the machine of
 * tests/rdma. scripts/bench runs it there. */
#include "bench/fabric/perftest.h"
#include "bench/fabric/verbs_ours.h"
#include "bench/report.h"
#include "fabric/record.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RUNS_MAX     9u
#define RUNS_DEFAULT 3u
#define WRITES       300u
#define READS        500u

struct measurement {
    const char *case_name, *metric, *unit;
    uint32_t length; /* bytes of a write or read */
    bool write;
};
static const struct measurement measurements[] = {
    {"verbs_write", "throughput", "B/s", TW_CHUNK_PAYLOAD, true},
    {"verbs_read", "latency_64", "us", 64, false},
    {"verbs_read", "latency_4096", "us", 4096, false},
};

struct setting {
    struct bench_perftest perftest;
    const char *source; /* numeric address to connect from */
    unsigned runs;
};

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, unsigned count)
{
    qsort(values, count, sizeof *values, by_value);
    return values[count / 2];
}

static enum tw_code ours(const struct setting *s, const struct measurement *m,
                         const struct bench_server *server, double *value, struct tw_error *err)
{
    return m->write ? bench_ours_write(server, s->source, WRITES, value, err)
                    : bench_ours_read(server, s->source, READS, m->length, value, err);
}

static enum tw_code theirs(const struct setting *s, const struct measurement *m, double *value,
                           struct tw_error *err)
{
    return m->write ? bench_perftest_write(&s->perftest, m->length, WRITES, value, err)
                    : bench_perftest_read(&s->perftest, m->length, READS, value, err);
}

/* Both in turn, so that what the machine does besides hits both. */
static enum tw_code measure(const struct setting *s, const struct measurement *m,
                            const struct bench_server *server, json_t *rows, struct tw_error *err)
{
    double a[RUNS_MAX], b[RUNS_MAX];
    for (unsigned i = 0; i < s->runs; i++) {
        enum tw_code code = ours(s, m, server, &a[i], err);
        if (!code)
            code = theirs(s, m, &b[i], err);
        if (code)
            return code;
    }
    const double our = median(a, s->runs), their = median(b, s->runs);
    const double ratio = bench_ratio(our, their, m->write);
    printf("%-12s %-14s %14.1f %14.1f %-4s %6.2f\n", m->case_name, m->metric, our, their, m->unit,
           ratio);
    fflush(stdout);
    json_array_append_new(
        rows, bench_row("fabric", m->case_name, m->metric, m->unit, our, "perftest", their, ratio));
    return TW_OK;
}

static bool parse_runs(const char *text, unsigned *runs)
{
    if (text[0] < '1' || text[0] > '9' || text[1])
        return false;
    *runs = (unsigned)(text[0] - '0');
    return true;
}

static int complain(const struct tw_error *err)
{
    char text[600];
    fprintf(stderr, "towline-bench-verbs: %s\n", tw_error_text(err, text, sizeof text));
    return 1;
}

int main(int argc, char **argv)
{
    struct setting s = {.runs = RUNS_DEFAULT};
    struct bench_server server = {0};
    struct tw_error err = {0};
    const char *kind = getenv("TOWLINE_RDMA_KIND");
    char devices[2][32];
    s.perftest.address = getenv("TOWLINE_VERBS_ADDRESS");
    s.source = getenv("TOWLINE_VERBS_SOURCE");
    if (argc < 2 || argc > 3 || (argc == 3 && !parse_runs(argv[2], &s.runs))) {
        fprintf(stderr, "Usage: towline-bench-verbs JSON-FILE [RUNS]\n"
                        "Inside tests/rdma/machine; RUNS of each, 1 to 9, medians [3].\n");
        return 2;
    }
    if (!kind || !s.perftest.address || !s.source) {
        fprintf(stderr, "towline-bench-verbs: no devices: run it by tests/rdma/machine\n");
        return 1;
    }
    for (unsigned i = 0; i < 2; i++)
        snprintf(devices[i], sizeof devices[i], "%.20s%u", kind, i);
    s.perftest.server_device = devices[0];
    s.perftest.client_device = devices[1];
    if (bench_server_start(s.perftest.address, &server, &err))
        return complain(&err);
    json_t *rows = json_array();
    enum tw_code code = TW_OK;
    printf("%-12s %-14s %14s %14s %-4s %6s\n", "case", "metric", "ours", "perftest", "", "ratio");
    for (unsigned i = 0; i < sizeof measurements / sizeof *measurements && !code; i++)
        code = measure(&s, &measurements[i], &server, rows, &err);
    bench_server_stop(&server);
    if (!code)
        code = bench_json_write(argv[1], rows, &err);
    json_decref(rows);
    return code ? complain(&err) : 0;
}
