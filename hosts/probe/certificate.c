/* How long the agent's certificate is still good, and whether it has been revoked. */
#include "hosts/probe/inside.h"

#include <inttypes.h>
#include <stdio.h>

#define DAY_S     INT64_C(86400)
#define SOON_DAYS INT64_C(14)

/* False when there is nothing to say about the list; else the probe has been answered. */
static bool revoked(const struct tw_probe *probe, const char *path)
{
    const struct tw_probe_settings *s = probe->settings;
    const char *list = tw_probe_or(s->revoked, "");
    struct tw_error err = {0};
    char text[600];
    bool is = false;
    if (!*list || !s->certificate_revoked)
        return false;
    if (s->certificate_revoked(list, path, &is, &err) != TW_OK) {
        tw_probe_says(probe, TW_PROBE_FAIL, "%s", tw_error_text(&err, text, sizeof text));
        tw_probe_mend(probe, "bring the authority's ca.crl here; until then agent and controller "
                             "keep the list they have read, and do not start anew");
        return true;
    }
    if (is)
        tw_probe_says(probe, TW_PROBE_FAIL, "%s has been revoked: it is on %s", path, list);
    return is;
}

void tw_probe_certificate(const struct tw_probe *probe)
{
    const struct tw_probe_settings *s = probe->settings;
    const char *path = tw_probe_or(s->certificate, "");
    struct tw_error err = {0};
    int64_t ends_s;
    char text[600];
    if (!*path || !s->certificate_end) {
        tw_probe_says(probe, TW_PROBE_SKIPPED, "no certificate is configured");
        return;
    }
    tw_probe_needs(probe, "good for at least %" PRId64 " days more, and not revoked", SOON_DAYS);
    tw_probe_mend(probe, "put a fresh one in its place; agent and controller take it without a "
                         "restart");
    if (s->certificate_end(path, &ends_s, &err) != TW_OK) {
        tw_probe_says(probe, TW_PROBE_FAIL, "%s", tw_error_text(&err, text, sizeof text));
        return;
    }
    if (revoked(probe, path))
        return;
    int64_t left_s = ends_s - (int64_t)(probe->system->wall_ms(probe->system->ctx) / 1000);
    if (left_s <= 0)
        tw_probe_says(probe, TW_PROBE_FAIL, "%s expired %" PRId64 " days ago", path,
                      -left_s / DAY_S);
    else
        tw_probe_says(probe, left_s < SOON_DAYS * DAY_S ? TW_PROBE_WARN : TW_PROBE_OK,
                      "%s is good for %" PRId64 " days", path, left_s / DAY_S);
}
