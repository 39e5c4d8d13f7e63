#include "config/config.h"

#include <string.h>

#define NAME_MAX_LENGTH 40u

static unsigned least(unsigned a, unsigned b, unsigned c)
{
    unsigned m = a < b ? a : b;
    return m < c ? m : c;
}

/* Edits (change, add, leave out, swap neighbours) that turn a into b: optimal string alignment,
 * three rows at a time. */
static unsigned distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
    unsigned rows[3][NAME_MAX_LENGTH + 1];
    for (unsigned j = 0; j <= b_length; j++)
        rows[0][j] = j;
    for (unsigned i = 1; i <= a_length; i++) {
        unsigned *now = rows[i % 3], *last = rows[(i + 2) % 3], *before = rows[(i + 1) % 3];
        now[0] = i;
        for (unsigned j = 1; j <= b_length; j++) {
            unsigned change = last[j - 1] + (a[i - 1] != b[j - 1]);
            now[j] = least(last[j] + 1, now[j - 1] + 1, change);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < now[j])
                now[j] = before[j - 2] + 1;
        }
    }
    return rows[a_length % 3][b_length];
}

const char *tw_config_nearest(const char *given, const char *const *names)
{
    size_t length = strlen(given);
    if (length == 0 || length > NAME_MAX_LENGTH)
        return NULL;
    unsigned allowed = (unsigned)length / 3 > 1 ? (unsigned)length / 3 : 1;
    const char *best = NULL;
    for (; *names; names++) {
        size_t n = strlen(*names);
        if (n > NAME_MAX_LENGTH)
            continue;
        unsigned d = distance(given, length, *names, n);
        if (d <= allowed) {
            best = *names;
            if (d == 0)
                break;
            allowed = d - 1;
        }
    }
    return best;
}
