#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

static const char *const level_names[] = {"debug", "info", "warn", "error", "off"};
static _Atomic int threshold = TW_LOG_INFO;
static char component_name[48] = "towline";

void tw_log_configure(const char *component, enum tw_log_level level)
{
    snprintf(component_name, sizeof component_name, "%s", component);
    threshold = (int)level;
}

bool tw_log_level_parse(const char *text, enum tw_log_level *level)
{
    for (unsigned i = 0; i < sizeof level_names / sizeof *level_names; i++) {
        if (strcasecmp(text, level_names[i]) == 0) {
            *level = (enum tw_log_level)i;
            return true;
        }
    }
    return false;
}

static int stamp(char *out, size_t size)
{
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t n = strftime(out, size, "%Y-%m-%dT%H:%M:%S", &utc);
    return (int)n + snprintf(out + n, size - n, ".%03ldZ", now.tv_nsec / 1000000);
}

void tw_log(enum tw_log_level level, const char *where, const char *event, const char *pairs, ...)
{
    if ((int)level < threshold || level >= TW_LOG_OFF)
        return;
    char line[1024];
    int n = stamp(line, sizeof line);
    n += snprintf(line + n, sizeof line - (size_t)n, " %-5s %s %s \"%s\" ", level_names[level],
                  component_name, where, event);
    if (n < (int)sizeof line) {
        va_list args;
        va_start(args, pairs);
        n += vsnprintf(line + n, sizeof line - (size_t)n, pairs, args);
        va_end(args);
    }
    if (n > (int)sizeof line - 1)
        n = (int)sizeof line - 1;
    /* One event is one line, whatever a peer put into a name. */
    for (int i = 0; i < n; i++)
        if ((unsigned char)line[i] < ' ')
            line[i] = '?';
    line[n++] = '\n';
    ssize_t written = write(STDERR_FILENO, line, (size_t)n);
    (void)written; /* nowhere to report a failed log line */
}
