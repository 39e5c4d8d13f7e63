/* What the process attachment asks of the kernel: asynchronous write-protect and PAGEMAP_SCAN.
 *
 * Both are younger than the headers of the distributions that we build on, so their numbers stand
 * here (Linux 6.7, include/uapi/linux/{userfaultfd,fs}.h). Whether they are there is tried out,
 * never concluded from a version. */
#ifndef TOWLINE_HOSTS_PROCESS_KERNEL_H
#define TOWLINE_HOSTS_PROCESS_KERNEL_H

#include "base/error.h"
#include "base/line.h"

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Categories of a page, as PAGEMAP_SCAN tells them. */
#define TW_PAGE_WPALLOWED (UINT64_C(1) << 0) /* its mapping is registered for async protection */
#define TW_PAGE_WRITTEN   (UINT64_C(1) << 1) /* not protected: written since, or never protected */
#define TW_PAGE_FILE      (UINT64_C(1) << 2) /* of a file's cache or of shared memory */
#define TW_PAGE_PRESENT   (UINT64_C(1) << 3)
#define TW_PAGE_SWAPPED   (UINT64_C(1) << 4)
#define TW_PAGE_ZERO      (UINT64_C(1) << 5) /* the page of zeros that all programs share */
#define TW_PAGE_HUGE      (UINT64_C(1) << 6) /* part of a big mapping */

#define TW_SCAN_PROTECT UINT64_C(1) /* protects the pages that it tells of, in the same step */

/* Consecutive pages of equal categories; the kernel's struct page_region. */
struct tw_page_run {
    uint64_t start, end; /* addresses */
    uint64_t categories;
};

/* The kernel's struct pm_scan_arg. */
struct tw_scan {
    uint64_t size, flags;
    uint64_t start, end, walk_end;
    uint64_t runs, runs_max;
    uint64_t pages_max;
    uint64_t inverted, all_of, any_of, tell;
};
static_assert(sizeof(struct tw_page_run) == 24 && sizeof(struct tw_scan) == 96,
              "as the kernel has them");
#define TW_SCAN_IOCTL _IOWR('f', 16, struct tw_scan) /* on /proc/PID/pagemap; <sys/ioctl.h> */

/* Scans the range for pages that are in all categories of `all_of` and in one of `any_of` (0 = no
 * matter which), and tells which of `tell` they are in, too (TW_PAGE_FILE and TW_PAGE_ZERO make a
 * scan ten times dearer). An absent page of a registered mapping counts as written. Fills at most
 * `max` runs, sets *reached to where to go on. Returns the number of runs, or -1 with errno (ESRCH:
 * the memory is gone). */
int tw_kernel_scan(int pagemap_fd, uint64_t flags, struct tw_range range, uint64_t all_of,
                   uint64_t any_of, uint64_t tell, struct tw_page_run *runs, size_t max,
                   uint64_t *reached);

/* Is the mapping at `range`, one line of the maps, not registered? -1 with errno as above. */
int tw_kernel_unregistered(int pagemap_fd, struct tw_range range);

/* Says hello to a new userfaultfd and asks for what we need; UNIMPLEMENTED when it is not there. */
enum tw_code tw_kernel_greet(int userfaultfd, const char *where, struct tw_error *err);

/* Registers for protection; 0 or an errno. The range is of mapped pages. */
int tw_kernel_register(int userfaultfd, struct tw_range range);
/* Protects all pages of a registered range, absent ones included; 0 or an errno. */
int tw_kernel_protect(int userfaultfd, struct tw_range range);

/* Tries everything out on memory of this process. *fault_ns becomes the time that a first store to
 * a protected page costs. UNIMPLEMENTED or PERMISSION_DENIED says what lacks. */
enum tw_code tw_kernel_probe(uint64_t *fault_ns, struct tw_error *err);

#endif
