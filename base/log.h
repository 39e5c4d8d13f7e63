/* Structured log: one line an event, key=value pairs, on standard error.
 *
 *   2026-11-22T10:00:00.123Z info  agent.migration  "round done" migration=m-1 round=3 lines=912
 *
 * Thread-safe: a line is written by one write(2). Secrets are never passed here. */
#ifndef TOWLINE_BASE_LOG_H
#define TOWLINE_BASE_LOG_H

#include <stdbool.h>

enum tw_log_level { TW_LOG_DEBUG, TW_LOG_INFO, TW_LOG_WARN, TW_LOG_ERROR, TW_LOG_OFF };

/* What every line of this process says first ("agent node-a"); copied. Default level: info. */
void tw_log_configure(const char *component, enum tw_log_level level);

/* False when `text` names no level; `*level` is then untouched. */
bool tw_log_level_parse(const char *text, enum tw_log_level *level);

/* `pairs` is a printf format that yields "key=value key=value"; values with blanks are quoted by
 * the caller. May be "". */
void tw_log(enum tw_log_level level, const char *where, const char *event, const char *pairs, ...)
    __attribute__((format(printf, 4, 5)));

#endif
