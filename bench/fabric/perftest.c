#include "bench/fabric/perftest.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OUTPUT_MAX 8192u
#define MEGABYTE   1048576.0 /* perftest's MB */
#define BW_AVERAGE 3u        /* columns: bytes, iterations, peak, average, messages */
#define LAT_MEDIAN 4u        /* bytes, iterations, min, max, typical, average, ... */

double bench_perftest_column(const char *output, unsigned length, unsigned count, unsigned column)
{
    while (output && *output) {
        char *end;
        double value = strtod(output, &end);
        bool match = end != output && value == length;
        for (unsigned i = 1; match && i <= column; i++) {
            const char *at = end;
            value = strtod(at, &end);
            match = end != at && (i != 1 || value == count);
        }
        if (match)
            return value;
        output = strchr(output, '\n');
        output = output ? output + 1 : NULL;
    }
    return NAN;
}

/* Server on one device, client on the other; the client's figures. */
static enum tw_code run(const struct bench_perftest *p, const char *program, unsigned length,
                        unsigned count, unsigned column, double *value, struct tw_error *err)
{
    char command[1024], output[OUTPUT_MAX];
    snprintf(command, sizeof command,
             "bash -c '. \"$TOWLINE_RDMA_INSIDE\";"
             " timeout 60 %s -R -F -d %s -s %u -n %u >/dev/null 2>&1 & server=$!;"
             " await_listener 18515 $server >&2 &&"
             " timeout 60 %s -R -F -d %s -s %u -n %u %s 2>&1; status=$?;"
             " kill $server 2>/dev/null; wait $server; exit $status'",
             program, p->server_device, length, count, program, p->client_device, length, count,
             p->address);
    FILE *f = popen(command, "r");
    if (!f)
        return tw_fail_errno(err, errno, program, "cannot start");
    size_t got = fread(output, 1, sizeof output - 1, f);
    output[got] = 0;
    int status = pclose(f);
    *value = bench_perftest_column(output, length, count, column);
    if (status != 0 || isnan(*value))
        return tw_fail(err, TW_INTERNAL, program, NULL, NULL, "failed (status %d): %.120s", status,
                       got > 120 ? output + got - 120 : output);
    return TW_OK;
}

enum tw_code bench_perftest_write(const struct bench_perftest *p, unsigned length, unsigned writes,
                                  double *bytes_per_s, struct tw_error *err)
{
    enum tw_code code = run(p, "ib_write_bw", length, writes, BW_AVERAGE, bytes_per_s, err);
    *bytes_per_s *= MEGABYTE;
    return code;
}

enum tw_code bench_perftest_read(const struct bench_perftest *p, unsigned length, unsigned reads,
                                 double *median_us, struct tw_error *err)
{
    return run(p, "ib_read_lat", length, reads, LAT_MEDIAN, median_us, err);
}
