/* The amplification meter of a virtual machine: an epoch of its own on the machine's device, ended
 * again and again. No line is copied and nothing is compared: lines that the guest stored to,
 * whatever the value (R7); bytes are not known. The guest is neither stopped nor slowed.
 *
 * What it costs is the owner's time: taking the marks off the link, and a visit to each dirty page;
 * struct tw_guest_figures tells it. A migration of the same machine is not disturbed: it has an
 * epoch of its own.
 *
 * Belongs to the thread that owns the host, which is handed in at each step: a machine whose
 * process has ended has taken the tracker with it. */
#ifndef TOWLINE_SERVICES_TRACKING_GUEST_H
#define TOWLINE_SERVICES_TRACKING_GUEST_H

#include "base/clock.h"
#include "hosts/host.h"
#include "services/tracking/figures.h"

#define TW_GUEST_HOT 8u

struct tw_guest_meter;

struct tw_guest_figures {
    struct tw_figures last, total; /* addresses are offsets into the machine's memory */
    uint64_t own_ns;               /* of the calling thread, for the last epoch */
    struct tw_region hot[TW_GUEST_HOT];
    size_t hot_count;
};

/* NULL when there is no memory. `clock` stays. */
struct tw_guest_meter *tw_guest_meter_open(const struct tw_clock *clock, uint64_t every_ns);
/* `host` NULL: it has ended. NULL meter is fine. */
void tw_guest_meter_close(struct tw_guest_meter *meter, const struct tw_host *host);

/* Does what is due, a few thousand pages at most; returns when to call again. */
uint64_t tw_guest_meter_step(struct tw_guest_meter *meter, const struct tw_host *host);
/* Of the last epoch that was counted. */
void tw_guest_meter_get(const struct tw_guest_meter *meter, struct tw_guest_figures *out);

#endif
