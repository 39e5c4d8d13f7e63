/* Large arrays of words that cost nothing until they are written: a word or so for each line or
 * page of a VM's memory. */
#ifndef TOWLINE_SERVICES_MIGRATION_BIG_ARRAY_H
#define TOWLINE_SERVICES_MIGRATION_BIG_ARRAY_H

#include "base/error.h"

#include <stdint.h>

/* `words` zeroed words; NULL and an error when there is no room. */
uint64_t *tw_big_array_open(uint64_t words, const char *what, struct tw_error *err);
void tw_big_array_close(uint64_t *array, uint64_t words); /* NULL is fine */

#endif
