#include "hosts/process/maps.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct tw_map_area parse(const char *line)
{
    struct tw_map_area area;
    cr_assert(tw_map_line_parse(line, strlen(line), &area), "%s", line);
    return area;
}

Test(maps, line_with_everything)
{
    struct tw_map_area a =
        parse("7f0000001000-7f0000003000 rwxs 0000a000 fe:01 1048602      /a b\\012c (deleted)");
    cr_expect_eq(a.start, 0x7f0000001000);
    cr_expect_eq(a.end, 0x7f0000003000);
    cr_expect(a.readable && a.writable && a.executable && a.shared && !a.anonymous);
    cr_expect_str_eq(a.name, "/a b\\012c (deleted)");
    cr_expect_eq(a.reason, TW_AREA_FOLLOWED);
}

Test(maps, what_is_followed_and_what_is_not)
{
    static const struct {
        const char *line;
        enum tw_area_reason reason;
        bool anonymous;
    } cases[] = {
        {"1000-2000 rw-p 0 00:00 0 ", TW_AREA_FOLLOWED, true},
        {"1000-2000 ---p 0 00:00 0", TW_AREA_FOLLOWED, true}, /* may become writable any time */
        {"1000-2000 r--p 0 00:00 0 [heap]", TW_AREA_FOLLOWED, true},
        {"1000-2000 rw-p 0 00:00 0 [stack]", TW_AREA_FOLLOWED, true},
        {"1000-2000 rw-p 0 08:01 5 /lib/x.so", TW_AREA_FOLLOWED, false},
        {"1000-2000 rw-s 0 00:01 5 /dev/zero (deleted)", TW_AREA_FOLLOWED, false},
        {"1000-2000 rw-s 0 00:01 5 /dev/shm/x", TW_AREA_FOLLOWED, false},
        {"1000-2000 r-xp 0 08:01 5 /lib/x.so", TW_AREA_READ_ONLY, false},
        {"1000-2000 r--s 0 08:01 5 /data", TW_AREA_READ_ONLY, false},
        {"1000-2000 rw-s 0 00:05 5 /dev/dri/card0", TW_AREA_DEVICE, false},
        {"1000-2000 r-xp 0 00:00 0 [vdso]", TW_AREA_KERNEL, true},
        {"1000-2000 r--p 0 00:00 0 [vvar]", TW_AREA_KERNEL, true},
        {"1000-2000 r--p 0 00:00 0 [vvar_vclock]", TW_AREA_KERNEL, true},
        {"ffffffffff600000-ffffffffff601000 --xp 0 00:00 0 [vsyscall]", TW_AREA_BEYOND, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tw_map_area a = parse(cases[i].line);
        cr_expect_eq(a.reason, cases[i].reason, "%s", cases[i].line);
        cr_expect_eq(a.anonymous, cases[i].anonymous, "%s", cases[i].line);
    }
}

Test(maps, lines_of_other_shapes_are_refused)
{
    static const char *const bad[] = {
        "",
        "1000",
        "1000-2000",
        "1000-2000 rw",
        "1000-2000 rwzp 0 00:00 0",
        "1000-2000 rw-x 0 00:00 0",
        "2000-1000 rw-p 0 00:00 0",
        "1000-1000 rw-p 0 00:00 0",
        "1001-2000 rw-p 0 00:00 0",
        "1000-2001 rw-p 0 00:00 0",
        "1000-2000 rw-p 0 0000 0",
        "1000-2000 rw-p 0 00:00 ",
        "1000-2000 rw-p 0 00:00 99999999999999999999",
        "-2000 rw-p 0 00:00 0",
        "11112222333344445-2000 rw-p 0 00:00 0",
        "1000 -2000 rw-p 0 00:00 0",
    };
    struct tw_map_area area;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_expect_not(tw_map_line_parse(bad[i], strlen(bad[i]), &area), "%s", bad[i]);
}

Test(maps, text_is_in_order_and_searchable)
{
    static const char text[] = "1000-3000 rw-p 0 00:00 0 \n"
                               "2000-4000 rw-p 0 00:00 0 \n" /* seen twice: it grew */
                               "2000-3000 rw-p 0 00:00 0 \n"
                               "8000-9000 rw-p 0 00:00 0 last";
    struct tw_maps maps = {0};
    cr_assert_eq(tw_maps_parse(text, sizeof text - 1, &maps, NULL), TW_OK);
    cr_assert_eq(maps.count, 3);
    cr_expect_eq(maps.areas[1].start, 0x3000);
    cr_expect_eq(maps.areas[1].end, 0x4000);
    cr_expect_str_eq(maps.areas[2].name, "last");
    cr_expect_eq(tw_maps_find(&maps, 0), 0);
    cr_expect_eq(tw_maps_find(&maps, 0x2fff), 0);
    cr_expect_eq(tw_maps_find(&maps, 0x3000), 1);
    cr_expect_eq(tw_maps_find(&maps, 0x4000), 2);
    cr_expect_eq(tw_maps_find(&maps, 0x9000), 3);
    struct tw_error err;
    cr_expect_eq(tw_maps_parse("1000-2000 rw-p 0 00:00 0\nno", 27, &maps, &err), TW_DATA_LOSS);
    cr_expect_str_eq(err.given, "no");
    tw_maps_free(&maps);
}

Test(maps, names_are_cut)
{
    char line[400] = "1000-2000 rw-p 0 00:00 0 ";
    memset(line + strlen(line), 'n', 300);
    cr_expect_eq(strlen(parse(line).name), 95);
}

Test(maps, own_maps_can_be_read_again_and_again)
{
    struct tw_maps maps = {0};
    static int somewhere;
    const int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(tw_maps_read(fd, &maps, NULL), TW_OK);
        const size_t at = tw_maps_find(&maps, (uint64_t)(uintptr_t)&somewhere);
        cr_assert_lt(at, maps.count);
        cr_expect_leq(maps.areas[at].start, (uint64_t)(uintptr_t)&somewhere);
        cr_expect(maps.areas[at].writable);
    }
    tw_maps_free(&maps);
    close(fd);
}
