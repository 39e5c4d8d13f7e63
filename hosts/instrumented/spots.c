/* What is not seen of one program: the general list, and what it told us itself. */
#include "hosts/instrumented/private.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GENERAL_MAX 16u
#define OWN_MAX     3u
#define TEXT_MAX    1024u
#define NAMES_MAX   8u

const char *const tw_instrumented_blind_spots[] = {
    "stores of objects without instrumentation, except through memcpy and the other functions that "
    "the runtime stands in front of",
    "the allocator's own bookkeeping, and what libc keeps for itself",
    "inline assembly, non-temporal and wider than 16-byte vector stores",
    "gcc: a structure that a function returns, and __builtin_memcpy without towline-cc",
    "clang: stores of unusual sizes (long double, bit-fields of 3 bytes)",
    "system calls other than read, recv and their kin; memory that is mapped, moved or unmapped",
    "loads (where they are asked for) inside libc and by the kernel, except by the functions that "
    "copy, compare, search or write out memory and texts, and where the compiler opens up a "
    "built-in function; one that is being made when an epoch ends may be told of that epoch alone",
    "regions that move: loads and stores of code without instrumentation, and system calls other "
    "than "
    "read, write and their kin, neither wait for a line nor are waited for",
    "other processes that write to shared memory, and children after fork",
    NULL,
};

/* A name is the program's own: no control characters, no other line. */
static void append_name(char *text, const char *name)
{
    size_t used = strlen(text);
    const char *base = strrchr(name, '/');
    for (name = base ? base + 1 : name; *name && used + 1 < TEXT_MAX; name++)
        text[used++] = isprint((unsigned char)*name) ? *name : '?';
    text[used] = 0;
}

static char *objects_spot(const struct tw_instrumented *p)
{
    struct tw_inst_object objects[NAMES_MAX];
    const size_t count = tw_instrumented_objects(p, objects, NAMES_MAX);
    char *text = count ? malloc(TEXT_MAX) : NULL;
    if (text == NULL)
        return NULL;
    snprintf(text, TEXT_MAX, "%zu objects of this program have no instrumentation: ", count);
    for (size_t i = 0; i < count && i < NAMES_MAX; i++) {
        append_name(text, i ? ", " : "");
        append_name(text, objects[i].name);
    }
    if (count > NAMES_MAX)
        append_name(text, " and others");
    return text;
}

static char *count_spot(uint64_t count, const char *what)
{
    char *text = count ? malloc(TEXT_MAX) : NULL;
    if (text)
        snprintf(text, TEXT_MAX, "%llu %s", (unsigned long long)count, what);
    return text;
}

enum tw_code tw_inst_spots_make(struct tw_instrumented *p, struct tw_error *err)
{
    struct tw_instrumented_stats stats;
    size_t count = 0;
    tw_instrumented_stats_get(p, &stats);
    p->spots = calloc(GENERAL_MAX + OWN_MAX + 1, sizeof *p->spots);
    if (p->spots == NULL)
        return tw_fail_errno(err, ENOMEM, p->name, "cannot attach");
    char *own[OWN_MAX] = {
        objects_spot(p),
        count_spot(stats.unsettled,
                   "threads may have had a store under way when the tracking began"),
        count_spot(stats.threads_refused, "threads found no record: their stores may be read too "
                                          "early"),
    };
    for (size_t i = 0; i < OWN_MAX; i++) {
        if (own[i])
            p->spots[count++] = own[i];
    }
    p->own_spots = count;
    for (size_t i = 0; i < GENERAL_MAX && tw_instrumented_blind_spots[i]; i++)
        p->spots[count++] = tw_instrumented_blind_spots[i];
    return TW_OK;
}

void tw_inst_spots_free(struct tw_instrumented *p)
{
    for (size_t i = 0; i < p->own_spots; i++)
        free((char *)(uintptr_t)p->spots[i]);
    free(p->spots);
}
