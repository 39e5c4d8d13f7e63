/* For tests: looks at every entry of a hierarchy and says what is wrong with it. */
#ifndef TOWLINE_HOSTS_CACHE_CHECK_H
#define TOWLINE_HOSTS_CACHE_CHECK_H

#include "hosts/cache/cache.h"

/* NULL when all holds: no line twice in a level, inclusion, at most one core may write a line and
 * then no other has it, a writable line is writable at every level, the last level knows every
 * holder. */
const char *tw_cache_check(const struct tw_cache *cache);

#endif
