/* Workers that take a guest's touches of guarded memory off the data thread.
 *
 * Each waits at the userfaultfd. A touch of a page that is complete, and only closed, a worker lets
 * go by itself; of others it notes the time and leaves them to the data thread, whose descriptor
 * becomes readable. They allocate nothing, take no RPC and hold no lock while they open a page but
 * the one that keeps the view alive.
 *
 *   guest thread           worker                         data thread
 *     touches, waits         reads the touch
 *                            complete: opens it
 *                            else: time, queue, bell        take(): asks the source
 *                                                           lines come: writes them, then the
 *                                                           page's word in the view (release),
 *                                                           then opens the page */
#ifndef TOWLINE_HOSTS_QEMU_FAULT_CREW_H
#define TOWLINE_HOSTS_QEMU_FAULT_CREW_H

#include "hosts/host.h"
#include "hosts/qemu/guard_open.h"

#define TW_FAULT_WORKERS_MAX     8u
#define TW_FAULT_WORKERS_DEFAULT 2u

struct tw_fault_crew;

/* `guarded` is copied; its descriptor stays the caller's and has to outlive the crew. Workers: 0 =
 * TW_FAULT_WORKERS_DEFAULT. */
enum tw_code tw_fault_crew_open(const struct tw_guarded *guarded, unsigned workers,
                                struct tw_fault_crew **crew, struct tw_error *err);
/* Ends the workers; NULL is fine. */
void tw_fault_crew_close(struct tw_fault_crew *crew);

/* What they may look at; NULL = nothing. Returns when nobody looks at the one before any more. */
void tw_fault_crew_view(struct tw_fault_crew *crew, const struct tw_host_fault_view *view);

/* Readable when there is something to take. */
int tw_fault_crew_fd(const struct tw_fault_crew *crew);
size_t tw_fault_crew_take(struct tw_fault_crew *crew, struct tw_host_fault *out, size_t max);

/* Touches that the workers let go by themselves. */
uint64_t tw_fault_crew_opened(const struct tw_fault_crew *crew);

#endif
