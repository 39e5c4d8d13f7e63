/* The diagrams in docs/migration.md are those of the tables. TOWLINE_DOCUMENT is its path. */
#include "services/migration/mirror.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *read_all(const char *path)
{
    FILE *f = fopen(path, "r");
    cr_assert(f, "%s", path);
    char *text = calloc(1, 1 << 20);
    cr_assert_lt(fread(text, 1, (1 << 20) - 1, f), (1 << 20) - 1);
    fclose(f);
    return text;
}

static void expect_diagram(const struct tw_machine_table *table)
{
    char marker[64], *diagram = NULL;
    size_t size;
    char *text = read_all(TOWLINE_DOCUMENT);
    FILE *out = open_memstream(&diagram, &size);
    fprintf(out, "```mermaid\n");
    tw_machine_mermaid(table, out);
    fprintf(out, "```\n");
    fclose(out);
    snprintf(marker, sizeof marker, "<!-- machine:%s -->\n", table->name);
    char *start = strstr(text, marker);
    cr_assert(start, "no marker for %s", table->name);
    start += strlen(marker);
    char *end = strstr(start, "<!-- end -->");
    cr_assert(end);
    *end = '\0';
    cr_assert_str_eq(start, diagram,
                     "docs/migration.md is out of date: paste what `towline-machines %s` prints",
                     table->name);
    free(diagram);
    free(text);
}

Test(document, shows_the_machines_as_they_are)
{
    expect_diagram(&tw_source_table);
    expect_diagram(&tw_destination_table);
    expect_diagram(&tw_mirror_table);
}
