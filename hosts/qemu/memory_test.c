/* RAM files: holes, and running out of room. */
#include "hosts/qemu/qemu_impl.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)

static char dir[32], path[48];
static struct tw_qemu_memory m;
static struct tw_error err;

static void setup(void)
{
    strcpy(dir, "/tmp/towline-ram-XXXXXX");
    cr_assert_neq(mkdtemp(dir), NULL);
    snprintf(path, sizeof path, "%s/ram", dir);
}

static void teardown(void)
{
    tw_memory_close(&m);
    unlink(path);
    umount2(dir, MNT_DETACH);
    rmdir(dir);
}

TestSuite(memory, .init = setup, .fini = teardown);

static uint64_t allocated(void)
{
    struct stat st;
    cr_assert_eq(stat(path, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

Test(memory, finds_what_was_written_and_nothing_else)
{
    cr_assert_eq(tw_memory_open(path, 64 * MIB, true, &m, &err), TW_OK);
    cr_assert_eq(tw_memory_next_data(&m, 0).length, 0);
    m.bytes[5 * MIB + 100] = 1;
    const struct tw_range r = tw_memory_next_data(&m, 0);
    cr_assert_leq(r.start, 5 * MIB);
    cr_assert_geq(r.start + r.length, 5 * MIB + TW_PAGE_SIZE);
    cr_assert_eq((r.start | r.length) % TW_PAGE_SIZE, 0);
    cr_assert_eq(tw_memory_next_data(&m, r.start + r.length).length, 0);
}

Test(memory, reserves_once_and_only_what_was_asked)
{
    const struct tw_range r = {.start = MIB + 5, .length = 100};
    cr_assert_eq(tw_memory_open(path, 64 * MIB, true, &m, &err), TW_OK);
    cr_assert_eq(tw_memory_reserve(&m, "vm", r, &err), TW_OK);
    const uint64_t first = allocated();
    cr_assert_geq(first, TW_QEMU_RESERVE_STEP);
    cr_assert_lt(first, MIB);
    cr_assert_eq(tw_memory_reserve(&m, "vm", r, &err), TW_OK);
    cr_assert_eq(allocated(), first);
    const struct tw_range all = {.length = 64 * MIB};
    cr_assert_eq(tw_memory_reserve(&m, "vm", all, &err), TW_OK);
    cr_assert_geq(allocated(), 64 * MIB);
}

Test(memory, keeps_what_is_there)
{
    const struct tw_range all = {.length = 4 * MIB};
    cr_assert_eq(tw_memory_open(path, 4 * MIB, true, &m, &err), TW_OK);
    memcpy(m.bytes + MIB, "kept", 5);
    cr_assert_eq(tw_memory_reserve(&m, "vm", all, &err), TW_OK);
    cr_assert_str_eq((char *)m.bytes + MIB, "kept");
}

Test(memory, refuses_what_lies_outside)
{
    const struct tw_range outside[] = {{4 * MIB, 1}, {0, 4 * MIB + 1}, {UINT64_MAX, 2}};
    cr_assert_eq(tw_memory_open(path, 4 * MIB, true, &m, &err), TW_OK);
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(tw_memory_reserve(&m, "vm", outside[i], &err), TW_OUT_OF_RANGE);
    const struct tw_range nothing = {4 * MIB, 0};
    cr_assert_eq(tw_memory_reserve(&m, "vm", nothing, &err), TW_OK);
}

/* A full file system is an error here, and not a signal at the first store. */
Test(memory, a_full_file_system_is_an_error)
{
    const struct tw_range half = {.length = 2 * MIB}, all = {.length = 16 * MIB};
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", dir, "tmpfs", 0, "size=4m") < 0) {
        cr_skip("a small file system needs the right to mount");
    }
    cr_assert_eq(tw_memory_open(path, 16 * MIB, true, &m, &err), TW_OK);
    cr_assert_eq(tw_memory_reserve(&m, "vm", half, &err), TW_OK);
    cr_assert_eq(tw_memory_reserve(&m, "vm", all, &err), TW_RESOURCE_EXHAUSTED);
    memset(m.bytes, 1, 2 * MIB);
}

Test(memory, only_a_file_of_the_right_size)
{
    cr_assert_eq(tw_memory_open(path, 4 * MIB, false, &m, &err), TW_NOT_FOUND);
    cr_assert_eq(tw_memory_open(path, 4 * MIB, true, &m, &err), TW_OK);
    struct tw_qemu_memory again;
    cr_assert_eq(tw_memory_open(path, 4 * MIB, true, &again, &err), TW_ALREADY_EXISTS);
    cr_assert_eq(access(path, F_OK), 0, "the one that is there stays");
    cr_assert_eq(tw_memory_open(path, 8 * MIB, false, &again, &err), TW_FAILED_PRECONDITION);
    cr_assert_eq(access(path, F_OK), 0);
    cr_assert_eq(tw_memory_open(path, 4 * MIB, false, &again, &err), TW_OK);
    again.bytes[0] = 7;
    cr_assert_eq(m.bytes[0], 7);
    tw_memory_close(&again);
}
