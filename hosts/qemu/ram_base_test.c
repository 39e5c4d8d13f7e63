#include "hosts/qemu/ram_base.h"

#include <criterion/criterion.h>
#include <string.h>

static bool find(const char *maps, uint64_t *base)
{
    FILE *f = fmemopen((void *)(uintptr_t)maps, strlen(maps), "r");
    const bool found = tw_ram_base_find(f, "/run/my vm/ram", 77, 0x10000, base);
    fclose(f);
    return found;
}

#define BEFORE                                                                                     \
    "55d000000000-55d000200000 r-xp 00000000 08:01 77                         /usr/bin/qemu\n"     \
    "7f0000000000-7f0000001000 rw-p 00000000 00:00 0 \n"

Test(ram_base, one_mapping)
{
    uint64_t base = 0;
    cr_assert(
        find(BEFORE "7f1000000000-7f1000010000 rw-s 00000000 00:1f 77   /run/my vm/ram\n", &base));
    cr_assert_eq(base, 0x7f1000000000u);
}

Test(ram_base, a_mapping_in_pieces)
{
    uint64_t base = 0;
    cr_assert(find(BEFORE "7f1000000000-7f1000008000 rw-s 00000000 00:1f 77   /run/my vm/ram\n"
                          "7f1000008000-7f1000010000 rw-s 00008000 00:1f 77   /run/my vm/ram\n",
                   &base));
    cr_assert_eq(base, 0x7f1000000000u);
}

Test(ram_base, named_from_another_root)
{
    uint64_t base = 0;
    cr_assert(find("7f1000000000-7f1000010000 rw-s 00000000 00:1f 77   /elsewhere/ram\n", &base));
}

Test(ram_base, what_gives_no_single_place)
{
    static const char *const cases[] = {
        "",
        BEFORE,
        "nonsense\n",
        "7f1000000000-7f1000008000 rw-s 00000000 00:1f 77   /run/my vm/ram\n", /* a part */
        "7f1000000000-7f1000008000 rw-s 00000000 00:1f 77   /run/my vm/ram\n"  /* a gap */
        "7f1000009000-7f1000011000 rw-s 00008000 00:1f 77   /run/my vm/ram\n",
        "7f1000000000-7f1000010000 rw-s 00000000 00:1f 77   /run/my vm/ram\n" /* twice */
        "7f2000000000-7f2000010000 rw-s 00000000 00:1f 77   /run/my vm/ram\n",
        "7f1000000000-7f1000010000 rw-s 00001000 00:1f 77   /run/my vm/ram\n", /* not from 0 */
        "7f1000000000-7f1000010000 rw-s 00000000 00:1f 78   /run/my vm/ram2\n",
        "7f1000000000-7f1000010000 rw-s 00000000 00:1f 78   /run/other/ram\n",
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint64_t base;
        if (cases[i][0])
            cr_assert_not(find(cases[i], &base), "case %u", i);
    }
}
