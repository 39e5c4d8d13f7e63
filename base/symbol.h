/* Program counters of a program that runs, for people. */
#ifndef TOWLINE_BASE_SYMBOL_H
#define TOWLINE_BASE_SYMBOL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* "function at file:line", from the debugging information of the object that holds `pc`, or
 * "object+offset", or the number. Runs addr2line where it is installed: up to two seconds. The
 * object is a file of the program's choice: never to be called with more rights than its owner's.
 */
const char *tw_symbol(pid_t pid, uint64_t pc, char *buffer, size_t size);

#endif
