/* Two clocks, compared by one exchange, as in RFC 5905 (section 8): the time that the one who was
 * asked took himself does not count, half of the rest bounds the error. */
#include "hosts/probe/inside.h"

#include "base/units.h"

#include <stdio.h>
#include <stdlib.h>

#define WARN_US INT64_C(1000000)  /* logs and events of two hosts no longer line up */
#define FAIL_US INT64_C(60000000) /* certificates are refused as not yet valid */
#define NS      UINT64_C(1000)

void tw_probe_clock(const char *name, const char *pair, const struct tw_probe_exchange *x,
                    struct tw_probe_result *result)
{
    const struct tw_probe probe = {.result = result};
    char offset_text[TW_SIZE_TEXT], bound_text[TW_SIZE_TEXT];
    *result = (struct tw_probe_result){.verdict = TW_PROBE_FAIL};
    snprintf(result->name, sizeof result->name, "%s", name);
    tw_probe_needs(&probe, "less than 1 s apart; 60 s and more make fresh certificates invalid");
    if (x->returned_us < x->asked_us || x->answered_us < x->received_us ||
        x->returned_us > INT64_MAX || x->answered_us > INT64_MAX) {
        tw_probe_says(&probe, TW_PROBE_WARN, "%s: a clock was set meanwhile; ask again", pair);
        return;
    }
    int64_t there = (int64_t)x->received_us - (int64_t)x->asked_us;
    int64_t back = (int64_t)x->answered_us - (int64_t)x->returned_us;
    int64_t offset = there / 2 + back / 2;
    uint64_t trip = x->returned_us - x->asked_us, taken = x->answered_us - x->received_us;
    int64_t bound = trip > taken ? (int64_t)((trip - taken) / 2) : 0;
    int64_t apart = llabs(offset), sure = apart > bound ? apart - bound : 0;
    enum tw_probe_verdict verdict = TW_PROBE_OK;
    if (sure >= FAIL_US)
        verdict = TW_PROBE_FAIL;
    else if (sure >= WARN_US)
        verdict = TW_PROBE_WARN;
    else if (bound >= WARN_US)
        verdict = TW_PROBE_SKIPPED;
    if (verdict >= TW_PROBE_WARN)
        tw_probe_mend(&probe, "timedatectl set-ntp true, on both");
    tw_probe_says(&probe, verdict, "%s: %s %s, give or take %s", pair,
                  tw_duration_format((uint64_t)apart * NS, offset_text),
                  offset < 0 ? "behind" : "ahead",
                  tw_duration_format((uint64_t)bound * NS, bound_text));
}
