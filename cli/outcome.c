#include "cli/outcome.h"

#include "cli/format.h"
#include "cli/json.h"
#include "cli/progress.h"
#include "cli/table.h"

#include "base/clock.h"
#include "base/units.h"

#include <inttypes.h>
#include <string.h>

#define VALUE_TEXT 64u

/* ---- Reasons ----------------------------------------------------------------------------------
 */

static const char *value_text(uint64_t value, const char *unit, const char *text,
                              char out[VALUE_TEXT])
{
    char size[TW_SIZE_TEXT];
    if (strcmp(unit, "bytes") == 0)
        snprintf(out, VALUE_TEXT, "%s", tw_size_format(value, size));
    else if (strcmp(unit, "bytes_per_s") == 0)
        snprintf(out, VALUE_TEXT, "%s/s", tw_size_format(value, size));
    else if (strcmp(unit, "us") == 0)
        snprintf(out, VALUE_TEXT, "%s",
                 tw_duration_format(value > TW_NEVER / TW_US ? TW_NEVER : value * TW_US, size));
    else if (strcmp(unit, "ms") == 0)
        snprintf(out, VALUE_TEXT, "%s",
                 tw_duration_format(value > TW_NEVER / TW_MS ? TW_NEVER : value * TW_MS, size));
    else if (strcmp(unit, "permille") == 0)
        snprintf(out, VALUE_TEXT, "%" PRIu64 ".%" PRIu64 " %%", value / 10, value % 10);
    else if (strcmp(unit, "unix_ms") == 0)
        tow_time_format(value, out);
    else if (unit[0])
        snprintf(out, VALUE_TEXT, "%" PRIu64, value);
    else
        snprintf(out, VALUE_TEXT, "%.60s", text);
    return out;
}

static enum tow_tone tone_of(Towline__V1__ReasonVerdict verdict)
{
    if (verdict == TOWLINE__V1__REASON_VERDICT__REASON_VERDICT_PASS)
        return TOW_TONE_GOOD;
    return verdict == TOWLINE__V1__REASON_VERDICT__REASON_VERDICT_WARN ? TOW_TONE_BUSY
                                                                       : TOW_TONE_BAD;
}

void tow_reasons_print(Towline__V1__Reason *const *reasons, size_t count, bool color, FILE *out)
{
    static const struct tow_column columns[] = {{"ABOUT", false},   {"RULE", false},
                                                {"VALUE", true},    {"LIMIT", true},
                                                {"VERDICT", false}, {"BECAUSE", false}};
    struct tow_table table;
    if (count == 0)
        return;
    tow_table_init(&table, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < count; i++) {
        const Towline__V1__Reason *r = reasons[i];
        char verdict[TOW_ENUM_TEXT], text[VALUE_TEXT];
        bool limited = r->limit || r->limit_text[0];
        tow_enum_name(&towline__v1__reason_verdict__descriptor, (int)r->verdict, verdict);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", r->about);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", r->rule);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s",
                      value_text(r->value, r->unit, r->value_text, text));
        tow_table_add(&table, TOW_TONE_PLAIN, "%s",
                      limited ? value_text(r->limit, r->unit, r->limit_text, text) : "");
        tow_table_add(&table, tone_of(r->verdict), "%s", verdict);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", r->text);
    }
    tow_table_print(&table, color, out);
    tow_table_free(&table);
}

/* ---- Forecast and outcome ---------------------------------------------------------------------
 */

enum figure_kind { FIGURE_COUNT, FIGURE_BYTES, FIGURE_US };

static const char *figure_text(enum figure_kind kind, uint64_t value, char out[VALUE_TEXT])
{
    static const char *const units[] = {"count", "bytes", "us"};
    return value_text(value, units[kind], "", out);
}

static void figure_add(struct tow_table *table, const char *name, enum figure_kind kind,
                       uint64_t said, uint64_t was)
{
    char text[VALUE_TEXT];
    tow_table_add(table, TOW_TONE_PLAIN, "%s", name);
    tow_table_add(table, TOW_TONE_PLAIN, "%s", figure_text(kind, said, text));
    tow_table_add(table, TOW_TONE_PLAIN, "%s", figure_text(kind, was, text));
    if (was)
        tow_table_add(table, TOW_TONE_PLAIN, "%+.1f %%",
                      ((double)said - (double)was) * 100 / (double)was);
    else
        tow_table_add(table, TOW_TONE_PLAIN, "%s", said ? "" : "0 %");
}

/* Passes behind the full copy that were made while the VM ran. */
static uint64_t rounds_of(const Towline__V1__MigrationProgress *p)
{
    uint64_t rounds = 0;
    for (size_t i = 0; i < p->n_rounds; i++)
        rounds += p->rounds[i]->index > 0 && !p->rounds[i]->final;
    return rounds;
}

/* What was changed on the way, and when: without it the forecast would only look wrong. */
static void adjusted_print(const Towline__V1__Migration *m, FILE *out)
{
    if (!m->adjusted)
        return;
    fputs("\nnot as planned: what ran was changed on the way, the forecast is of what was not\n",
          out);
    for (size_t i = 0; i < m->n_audit; i++) {
        const Towline__V1__AuditEntry *e = m->audit[i];
        char line[VALUE_TEXT * 4], safe[VALUE_TEXT * 4], after[TW_SIZE_TEXT];
        uint64_t ms = e->unix_ms > m->created_unix_ms ? e->unix_ms - m->created_unix_ms : 0;
        snprintf(line, sizeof line, "%.32s%s%.32s%s%.32s", e->what, e->from[0] ? " from " : "",
                 e->from, e->to[0] ? " to " : "", e->to);
        fprintf(out, "  %s after its start: %s\n",
                tw_duration_format(ms > TW_NEVER / TW_MS ? TW_NEVER : ms * TW_MS, after),
                tow_safe_text(line, safe, sizeof safe));
    }
}

void tow_forecast_print(const Towline__V1__Migration *m, bool color, FILE *out)
{
    static const struct tow_column columns[] = {
        {"", false}, {"FORECAST", true}, {"OUTCOME", true}, {"ERROR", true}};
    static const Towline__V1__MigrationProgress none = TOWLINE__V1__MIGRATION_PROGRESS__INIT;
    const Towline__V1__Forecast *f = m->forecast;
    const Towline__V1__MigrationProgress *p = m->progress ? m->progress : &none;
    struct tow_table table;
    adjusted_print(m, out);
    if (!f || m->state != TOWLINE__V1__MIGRATION_STATE__MIGRATION_STATE_COMPLETED)
        return;
    fputc('\n', out);
    tow_table_init(&table, columns, sizeof columns / sizeof *columns);
    figure_add(&table, "rounds", FIGURE_COUNT, f->rounds, rounds_of(p));
    figure_add(&table, "bytes", FIGURE_BYTES, f->bytes, p->bytes_sent);
    figure_add(&table, "downtime", FIGURE_US, f->downtime_us, p->downtime_us);
    /* The hook is the operator's own, and nobody can foresee his pauses. */
    uint64_t besides = p->hook_us + p->paused_us;
    figure_add(&table, "total", FIGURE_US, f->total_us,
               p->total_us > besides ? p->total_us - besides : 0);
    if (f->lines_to_come || p->lines_to_come)
        figure_add(&table, "lines behind", FIGURE_COUNT, f->lines_to_come, p->lines_to_come);
    tow_table_print(&table, color, out);
    tow_table_free(&table);
}

/* ---- Audit ------------------------------------------------------------------------------------
 */

void tow_audit_print(const Towline__V1__Migration *m, bool color, FILE *out)
{
    static const struct tow_column columns[] = {
        {"WHEN", false}, {"WHO", false}, {"WHAT", false}, {"FROM", false}, {"TO", false}};
    struct tow_table table;
    if (m->n_audit == 0)
        return;
    fputc('\n', out);
    tow_table_init(&table, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < m->n_audit; i++) {
        const Towline__V1__AuditEntry *e = m->audit[i];
        char time[TOW_TIME_TEXT];
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", tow_time_format(e->unix_ms, time));
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", e->who);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", e->what);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", e->from);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", e->to);
    }
    tow_table_print(&table, color, out);
    tow_table_free(&table);
}
