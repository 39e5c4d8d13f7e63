/* Program counters of a program that runs, for people. */
#ifndef TOWLINE_BASE_SYMBOL_H
#define TOWLINE_BASE_SYMBOL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* /proc/PID/maps as a text to keep, for symbols are asked for when a program has ended, too. NULL
 * when it has already, or may not be read. The caller's to free. */
char *tw_symbol_maps(pid_t pid);

/* "function at file:line", from the debugging information of the object that holds `pc`, or
 * "object+offset", or the number (`maps` may be NULL). Runs addr2line where it is installed: up to
 * two seconds. The object is a file of the program's choice: never to be called with more rights
 * than its owner's. */
const char *tw_symbol(const char *maps, uint64_t pc, char *buffer, size_t size);

#endif
