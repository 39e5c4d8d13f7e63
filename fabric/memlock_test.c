#include "fabric/memlock.h"
#include "fabric/verbs_probe.h"

#include <criterion/criterion.h>
#include <string.h>
#include <sys/resource.h>

#define MIB (UINT64_C(1) << 20)

Test(memlock, is_read_from_the_status_text)
{
    struct tw_memlock m = {0};
    tw_memlock_parse(
        "Name:\tVmPin: 7\nVmLck:\t 1 kB\nVmPin:\t    2048 kB\nCapEff:\t00000000a80465fb\n"
        "Seccomp:\t0\n",
        &m);
    cr_assert_eq(m.pinned_bytes, 2 * MIB);
    cr_assert_eq(m.exempt, 0xa80465fb >> 14 & 1);
    tw_memlock_parse("VmPin:\t1 kB\nCapEff:\t000001ffffffffff\n", &m);
    cr_assert_eq(m.pinned_bytes, 1024);
    cr_assert(m.exempt);
}

Test(memlock, odd_status_texts_do_no_harm)
{
    struct tw_memlock m = {.pinned_bytes = 1, .exempt = true};
    tw_memlock_parse("", &m);
    cr_assert_eq(m.pinned_bytes, 0);
    cr_assert_not(m.exempt);
    tw_memlock_parse("VmPin:", &m);
    tw_memlock_parse("\n\n\nVmPin:\t99999999999999999999999 kB\nCapEff:\tzz", &m);
    cr_assert_eq(m.pinned_bytes, UINT64_MAX);
}

Test(memlock, is_checked_with_what_is_pinned)
{
    struct tw_memlock m = {.limit_bytes = 8 * MIB, .pinned_bytes = 3 * MIB};
    struct tw_error err;
    cr_assert_eq(tw_memlock_check(&m, false, 5 * MIB, "vm web-1", &err), TW_OK);
    cr_assert_eq(tw_memlock_check(&m, false, 5 * MIB + 1, "vm web-1", &err), TW_RESOURCE_EXHAUSTED);
    cr_assert_str_eq(err.where, "vm web-1");
    cr_assert_not_null(strstr(err.what, "ulimit -l"));
    cr_assert_not_null(strstr(err.expected, "5242881 bytes to pin, 3145728"), "%s", err.expected);
    cr_assert_not_null(strstr(err.given, "8388608"), "%s", err.given);
    cr_assert_eq(tw_memlock_check(&m, false, UINT64_MAX, NULL, NULL), TW_RESOURCE_EXHAUSTED);
    m.pinned_bytes = 9 * MIB;
    cr_assert_eq(tw_memlock_check(&m, false, 0, NULL, NULL), TW_RESOURCE_EXHAUSTED);
    m.exempt = true;
    cr_assert_eq(tw_memlock_check(&m, false, 64 * MIB, NULL, NULL), TW_OK);
    cr_assert_eq(tw_memlock_check(&m, true, 64 * MIB, NULL, NULL), TW_RESOURCE_EXHAUSTED);
    m.limit_bytes = TW_MEMLOCK_UNLIMITED;
    cr_assert_eq(tw_memlock_check(&m, true, 64 * MIB, NULL, NULL), TW_OK);
}

Test(memlock, follows_the_limit_of_the_process)
{
    struct rlimit limit;
    struct tw_memlock m;
    cr_assert_eq(getrlimit(RLIMIT_MEMLOCK, &limit), 0);
    limit.rlim_cur = 65536;
    cr_assert_eq(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
    tw_memlock_get(&m);
    cr_assert_eq(m.limit_bytes, 65536);
}

/* On a host with devices the answer is checked too: it is one or the other, and says why. */
Test(probe, says_usable_or_why_not)
{
    static struct tw_verbs_probe probe;
    memset(&probe, 0xff, sizeof probe);
    const bool usable = tw_fabric_verbs_probe(&probe);
    cr_assert_eq(usable, probe.usable);
    cr_assert_eq(probe.why[0] == '\0', usable, "%s", probe.why);
    cr_assert_leq(probe.port_count, TW_VERBS_PORTS_MAX);
    for (uint32_t i = 0; i < probe.port_count; i++) {
        const struct tw_verbs_port *p = &probe.ports[i];
        cr_assert_eq(p->why[0] == '\0', p->usable, "%s", p->why);
        cr_assert(p->device[0] && p->port > 0);
    }
    cr_assert_str_eq(tw_verbs_transport_name(TW_VERBS_IWARP), "iWARP");
}
