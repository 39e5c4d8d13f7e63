/* Big tables that start as zeros and cost memory only where they are touched.
 *
 * A device over many GiB opens in microseconds: its tables are reserved, and the kernel hands out
 * zero pages at the first touch. Small tables come from the heap, where checkers watch them. */
#ifndef TOWLINE_FPGA_MODEL_LAZY_H
#define TOWLINE_FPGA_MODEL_LAZY_H

#include <stddef.h>

/* `bytes` of zeros, or NULL when there is no room. Free with the same size. */
void *tw_lazy_alloc(size_t bytes);
void tw_lazy_free(void *table, size_t bytes); /* NULL is fine */

#endif
