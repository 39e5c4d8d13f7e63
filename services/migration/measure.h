/* Looks at a running VM for a few seconds: how many distinct lines get dirty in how long (over
 * several epochs of different lengths), what a full copy of its memory would put on the wire, how
 * fast memory is compared here. The VM is neither stopped nor slowed; nothing is sent.
 *
 * Belongs to the thread that owns the host, which is handed in at each step, so that a machine that
 * has gone leaves nothing dangling. */
#ifndef TOWLINE_SERVICES_MIGRATION_MEASURE_H
#define TOWLINE_SERVICES_MIGRATION_MEASURE_H

#include "base/clock.h"
#include "hosts/host.h"
#include "services/migration/dirty_curve.h"

#define TW_MEASURE_NS_MIN (100 * TW_MS)
#define TW_MEASURE_NS_MAX (60 * TW_SEC)

struct tw_measure;

struct tw_measured {
    uint64_t duration_ns;
    struct tw_dirty_curve curve;
    uint64_t data_bytes;      /* pages that are not holes */
    uint64_t full_copy_bytes; /* these as records */
    uint64_t compare_bytes_per_s;
    uint64_t write_backs_per_s; /* lines, rewritten ones again */
    uint64_t working_set_lines, working_set_pages;
};

/* `name` tells its tracker from others of the device; one measurement of a name at a time. */
enum tw_code tw_measure_start(const struct tw_clock *clock, const struct tw_host *host,
                              const char *name, uint64_t for_ns, struct tw_measure **measure,
                              struct tw_error *err);
/* Does what is due, a few milliseconds at most; returns when to call again. */
uint64_t tw_measure_step(struct tw_measure *measure, const struct tw_host *host);
/* How long it will go on; 0 = done. */
uint64_t tw_measure_left_ns(const struct tw_measure *measure);
/* What is known; complete when it is done. */
void tw_measure_result(const struct tw_measure *measure, struct tw_measured *out);
/* `host` NULL: it has gone, and the tracker with it. */
void tw_measure_free(struct tw_measure *measure, const struct tw_host *host);

#endif
