#include "base/units.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Parses a non-negative decimal number and leaves *rest behind it. */
static bool number_parse(const char *text, double *value, const char **rest)
{
    char *end;
    if (!((*text >= '0' && *text <= '9') || *text == '.'))
        return false;
    /* strtod would take "0x10" and "1e3": neither is a size that people write here. */
    size_t digits = strspn(text, "0123456789.");
    char digits_only[32];
    if (digits >= sizeof digits_only)
        return false;
    memcpy(digits_only, text, digits);
    digits_only[digits] = 0;
    *value = strtod(digits_only, &end);
    *rest = text + digits;
    return *end == 0 && isfinite(*value);
}

bool tw_size_parse(const char *text, uint64_t *bytes)
{
    static const char prefixes[] = "KMGTP";
    double value;
    const char *rest;
    if (!number_parse(text, &value, &rest))
        return false;
    while (*rest == ' ')
        rest++;
    double factor = 1;
    const char *p = *rest ? strchr(prefixes, *rest & ~0x20) : NULL;
    if (p && *p) {
        factor = ldexp(1, 10 * (int)(p - prefixes + 1));
        rest++;
        if (*rest == 'i' || *rest == 'I') {
            rest++;
            if (*rest != 'b' && *rest != 'B')
                return false;
        }
    }
    if (*rest == 'b' || *rest == 'B')
        rest++;
    if (strcmp(rest, "/s") == 0)
        rest += 2;
    if (*rest || value * factor >= 0x1p63)
        return false;
    *bytes = (uint64_t)(value * factor);
    return true;
}

bool tw_duration_parse(const char *text, uint64_t *ns)
{
    static const struct {
        const char *name;
        double factor;
    } units[] = {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}};
    double value;
    const char *rest;
    if (!number_parse(text, &value, &rest))
        return false;
    for (unsigned i = 0; i < sizeof units / sizeof *units; i++) {
        if (strcasecmp(rest, units[i].name) == 0 && value * units[i].factor < 0x1p63) {
            *ns = (uint64_t)(value * units[i].factor);
            return true;
        }
    }
    return false;
}

const char *tw_size_format(uint64_t bytes, char out[TW_SIZE_TEXT])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    unsigned u = 0;
    while (value >= 1024 && u < 6) {
        value /= 1024;
        u++;
    }
    snprintf(out, TW_SIZE_TEXT, u == 0 || value >= 100 ? "%.0f %s" : "%.1f %s", value, units[u]);
    return out;
}

const char *tw_duration_format(uint64_t ns, char out[TW_SIZE_TEXT])
{
    double v = (double)ns;
    if (v >= 60e9)
        snprintf(out, TW_SIZE_TEXT, "%.1f min", v / 60e9);
    else if (v >= 1e9)
        snprintf(out, TW_SIZE_TEXT, "%.2f s", v / 1e9);
    else if (v >= 1e6)
        snprintf(out, TW_SIZE_TEXT, "%.1f ms", v / 1e6);
    else if (v >= 1e3)
        snprintf(out, TW_SIZE_TEXT, "%.0f us", v / 1e3);
    else
        snprintf(out, TW_SIZE_TEXT, "%.0f ns", v);
    return out;
}
