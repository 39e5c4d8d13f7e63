#include "cli/doctor.h"
#include "cli/json.h"
#include "cli/table.h"

static const enum tow_tone tones[] = {
    [TW_PROBE_SKIPPED] = TOW_TONE_PLAIN,
    [TW_PROBE_OK] = TOW_TONE_GOOD,
    [TW_PROBE_WARN] = TOW_TONE_BUSY,
    [TW_PROBE_FAIL] = TOW_TONE_BAD,
};

/* "2 fail, 1 warn, 10 ok, 3 skipped" */
static void print_counts(struct tow *tow, const struct tow_diagnosis *d)
{
    const char *separator = "";
    for (int v = TW_PROBE_FAIL; v >= TW_PROBE_SKIPPED; v--) {
        unsigned count = 0;
        for (size_t i = 0; i < d->count; i++)
            count += (int)d->results[i].verdict == v;
        if (count == 0)
            continue;
        fprintf(tow->out, "%s%s%u %s%s", separator, tow_tone_begin(tones[v], tow->color_out), count,
                tw_probe_verdict_name((enum tw_probe_verdict)v),
                tow_tone_end(tones[v], tow->color_out));
        separator = ", ";
    }
    fputc('\n', tow->out);
}

static void print_table(struct tow *tow, const struct tow_diagnosis *d)
{
    static const struct tow_column columns[] = {
        {"PROBE", false}, {"VERDICT", false}, {"FOUND", false}};
    struct tow_table table;
    tow_table_init(&table, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < d->count; i++) {
        const struct tw_probe_result *r = &d->results[i];
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", r->name);
        tow_table_add(&table, tones[r->verdict], "%s", tw_probe_verdict_name(r->verdict));
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", r->found);
    }
    tow_table_print(&table, tow->color_out, tow->out);
    tow_table_free(&table);
}

static void print_mending(struct tow *tow, const struct tow_diagnosis *d)
{
    char safe[256];
    for (size_t i = 0; i < d->count; i++) {
        const struct tw_probe_result *r = &d->results[i];
        enum tow_tone tone = tones[r->verdict];
        if (r->verdict < TW_PROBE_WARN)
            continue;
        fprintf(tow->out, "\n%s%s%s\n", tow_tone_begin(tone, tow->color_out),
                tow_safe_text(r->name, safe, sizeof safe), tow_tone_end(tone, tow->color_out));
        fprintf(tow->out, "  found   %s\n", tow_safe_text(r->found, safe, sizeof safe));
        fprintf(tow->out, "  needed  %s\n", tow_safe_text(r->needed, safe, sizeof safe));
        fprintf(tow->out, "  mend    %s\n", tow_safe_text(r->mend, safe, sizeof safe));
    }
}

static void print_one(struct tow *tow, const struct tow_diagnosis *d)
{
    char safe[96];
    fprintf(tow->out, "%s%s%s: ", tow_tone_begin(TOW_TONE_TITLE, tow->color_out),
            d->host[0] ? tow_safe_text(d->host, safe, sizeof safe) : "this machine",
            tow_tone_end(TOW_TONE_TITLE, tow->color_out));
    print_counts(tow, d);
    fputc('\n', tow->out);
    print_table(tow, d);
    print_mending(tow, d);
}

/* ---- JSON: the names of the contract -----------------------------------------------------------
 */

static void json_pair(const char *name, const char *value, const char *after, FILE *out)
{
    fprintf(out, "\"%s\": ", name);
    tow_json_string(value, out);
    fputs(after, out);
}

static void json_one(const struct tow_diagnosis *d, FILE *out)
{
    fputs("    {", out);
    json_pair("host", d->host, ", ", out);
    json_pair("worst", tw_probe_verdict_name(tw_probe_worst(d->results, d->count)),
              ", \"results\": [", out);
    for (size_t i = 0; i < d->count; i++) {
        const struct tw_probe_result *r = &d->results[i];
        fputs(i ? ",\n      {" : "\n      {", out);
        json_pair("name", r->name, ", ", out);
        json_pair("verdict", tw_probe_verdict_name(r->verdict), ", ", out);
        json_pair("found", r->found, ", ", out);
        json_pair("needed", r->needed, ", ", out);
        json_pair("mend", r->mend, "}", out);
    }
    fputs("]}", out);
}

int tow_diagnoses_print(struct tow *tow, const struct tow_diagnosis *diagnoses, size_t count)
{
    enum tw_probe_verdict worst = TW_PROBE_SKIPPED;
    for (size_t i = 0; i < count; i++) {
        enum tw_probe_verdict of_one = tw_probe_worst(diagnoses[i].results, diagnoses[i].count);
        worst = of_one > worst ? of_one : worst;
    }
    if (tow->json) {
        fputs("{", tow->out);
        json_pair("worst", tw_probe_verdict_name(worst), ",\n  \"diagnoses\": [\n", tow->out);
    } else if (count == 0) {
        fputs("no hosts\n", tow->out);
    }
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            fputs(tow->json ? ",\n" : "\n\n", tow->out);
        if (tow->json)
            json_one(&diagnoses[i], tow->out);
        else
            print_one(tow, &diagnoses[i]);
    }
    if (tow->json)
        fputs("]}\n", tow->out);
    return worst == TW_PROBE_FAIL   ? TOW_EXIT_UNFIT
           : worst == TW_PROBE_WARN ? TOW_EXIT_WARNED
                                    : TOW_EXIT_OK;
}
