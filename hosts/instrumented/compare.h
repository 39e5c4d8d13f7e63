/* What stores changed: pages whose lines were stored to are read and compared with a copy, while
 * somebody wants that. It tells how many bytes changed, and which lines were stored to in vain.
 *
 *   marks taken --> lines listed --> announcements noted --> pages read --> marks looked at
 *                                                        told <-- lines compared <--
 *
 * Only listed lines are compared and brought up to date in the copy. A line that is marked anew by
 * the time its page has been read may hold what comes later: where that equals the copy the next
 * time, nobody can say whether the store in between changed it ("unsure"). So it is with a store
 * that is announced, and perhaps not made, when its line is looked at, and with one that is
 * carried. So no line is said to have been stored to in vain that was not.
 *
 * A page's first report has nothing to compare with. Copies are bounded; a page without stays so.
 * All of it belongs to the thread of the attachment. */
#ifndef TOWLINE_HOSTS_INSTRUMENTED_COMPARE_H
#define TOWLINE_HOSTS_INSTRUMENTED_COMPARE_H

#include "hosts/attachment.h"

struct tw_instrumented;
struct tw_inst_window;
struct tw_inst_compare;

/* `told` NULL: no more. RESOURCE_EXHAUSTED: no memory. UNIMPLEMENTED: not in this mode. */
enum tw_code tw_inst_compare_observe(struct tw_instrumented *p, tw_told_fn told, void *arg,
                                     struct tw_error *err);
void tw_inst_compare_close(struct tw_inst_compare *c); /* NULL is fine */

/* Lines of page `page` of the window were stored to (`carried`: or it is only thought possible):
 * compared now or with the next flush. Nothing happens where nobody observes; the same of the
 * flush, after which no window is referred to. */
void tw_inst_compare_lines(struct tw_instrumented *p, const struct tw_inst_window *w, uint64_t page,
                           uint64_t lines, bool carried);
void tw_inst_compare_flush(struct tw_instrumented *p);

#endif
