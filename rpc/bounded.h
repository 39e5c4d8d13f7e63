/* Runs a piece of work that may hang (nng's close functions have been seen to) on a thread of its
 * own and waits for it, but not for ever. */
#ifndef TOWLINE_RPC_BOUNDED_H
#define TOWLINE_RPC_BOUNDED_H

#include <stdbool.h>

/* True when `work` returned within `ms`. On false it may still be running: whatever it uses must
 * then be left alone, and not freed. Where no thread can be made, the work is done in place. */
bool tw_bounded_run(void (*work)(void *arg), void *arg, unsigned ms);

#endif
