#include "cli/vmfile.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static enum tw_code parse(const char *text, Towline__V1__VmSpec **spec, struct tw_error *err)
{
    memset(err, 0, sizeof *err);
    return tow_vmfile_parse("web.yaml", "/srv/vms", text, strlen(text), spec, err);
}

#define SMALL "name: web-1\nmemory: 256MiB\nkernel: vmlinuz\n"

Test(vmfile, smallest)
{
    Towline__V1__VmSpec *spec;
    struct tw_error err;
    cr_assert_eq(parse(SMALL, &spec, &err), TW_OK, "%s", err.what);
    cr_assert_str_eq(spec->name, "web-1");
    cr_assert_eq(spec->memory_bytes, UINT64_C(256) << 20);
    cr_assert_eq(spec->vcpus, 1);
    cr_assert_str_eq(spec->kernel, "/srv/vms/vmlinuz");
    cr_assert_str_eq(spec->initrd, "");
    cr_assert_eq(spec->cache->kind, TOWLINE__V1__CACHE_KIND__CACHE_KIND_NONE);
    towline__v1__vm_spec__free_unpacked(spec, NULL);
}

Test(vmfile, everything)
{
    static const char text[] = "# a web server\n"
                               "name: web-1\n"
                               "memory: 1.5GiB\n"
                               "vcpus: 2\n"
                               "kernel: /boot/vmlinuz\n"
                               "initrd: images/web.cpio\n"
                               "command_line: console=ttyS0 quiet\n"
                               "cache:\n"
                               "  kind: mesi\n"
                               "  l1: {size: 32KiB, ways: 8}\n"
                               "  last_level: {size: 8MiB, ways: 16}\n";
    Towline__V1__VmSpec *spec;
    struct tw_error err;
    cr_assert_eq(parse(text, &spec, &err), TW_OK, "%s", err.what);
    cr_assert_eq(spec->memory_bytes, UINT64_C(1536) << 20);
    cr_assert_eq(spec->vcpus, 2);
    cr_assert_str_eq(spec->kernel, "/boot/vmlinuz");
    cr_assert_str_eq(spec->initrd, "/srv/vms/images/web.cpio");
    cr_assert_str_eq(spec->command_line, "console=ttyS0 quiet");
    cr_assert_eq(spec->cache->kind, TOWLINE__V1__CACHE_KIND__CACHE_KIND_MESI);
    cr_assert_eq(spec->cache->l1->size_bytes, 32768);
    cr_assert_eq(spec->cache->l1->ways, 8);
    cr_assert_null(spec->cache->l2);
    cr_assert_eq(spec->cache->last_level->ways, 16);
    towline__v1__vm_spec__free_unpacked(spec, NULL);
}

/* Each text with where its error must point to. */
static const struct {
    const char *text;
    const char *where;
} wrong[] = {
    {"", "web.yaml:1"},
    {"just text", "web.yaml:1"},
    {"- a\n- b\n", "web.yaml:1"},
    {"name: web-1\nmemory: 256MiB\n", "web.yaml:1"},
    {SMALL "colour: red\n", "web.yaml:4"},
    {SMALL "name: again\n", "web.yaml:4"},
    {"name: Web\n", "web.yaml:1"},
    {"name: -web\n", "web.yaml:1"},
    {"name: a2345678901234567890123456789012345678901234567890123456789012345\n", "web.yaml:1"},
    {"name: [a]\n", "web.yaml:1"},
    {"memory: 3MiB\n", "web.yaml:1"},
    {"memory: 4194305\n", "web.yaml:1"},
    {"memory: lots\n", "web.yaml:1"},
    {"memory: -256MiB\n", "web.yaml:1"},
    {SMALL "vcpus: 0\n", "web.yaml:4"},
    {SMALL "vcpus: 65\n", "web.yaml:4"},
    {SMALL "vcpus: two\n", "web.yaml:4"},
    {SMALL "initrd: [x]\n", "web.yaml:4"},
    {SMALL "cache: mesi\n", "web.yaml:4"},
    {SMALL "cache:\n  kind: moesi\n", "web.yaml:5"},
    {SMALL "cache:\n  l1: {size: 32KiB, ways: 8}\n", "web.yaml:5"},
    {SMALL "cache:\n  kind: mesi\n  l4: {size: 1, ways: 1}\n", "web.yaml:6"},
    {SMALL "cache:\n  kind: mesi\n  l1: {size: 32KiB}\n", "web.yaml:6"},
    {SMALL "cache:\n  kind: mesi\n  l1: {size: 32KiB, ways: 33}\n", "web.yaml:6"},
    {SMALL "cache:\n  kind: mesi\n  l1: {size: 100, ways: 1}\n", "web.yaml:6"},
    {SMALL "cache:\n  kind: mesi\n  kind: none\n", "web.yaml:6"},
    {SMALL "cache:\n  kind: mesi\n  l1: {size: 32KiB, ways: 7}\n", "web.yaml: cache l1"},
    {SMALL "cache:\n  kind: mesi\n  last_level: {size: 6MiB, ways: 16}\n",
     "web.yaml: cache last_level"},
    {SMALL "---\nname: second\n", "web.yaml:4"},
    {SMALL "command_line: \"open\n", "web.yaml:5"},
    {SMALL "\tvcpus: 1\n", "web.yaml:4"},
};

Test(vmfile, each_mistake_points_to_its_line)
{
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        Towline__V1__VmSpec *spec;
        struct tw_error err;
        cr_expect_eq(parse(wrong[i].text, &spec, &err), TW_INVALID_ARGUMENT, "%s", wrong[i].text);
        cr_expect_null(spec);
        cr_expect_str_eq(err.where, wrong[i].where, "%s: %s, %s", wrong[i].text, err.where,
                         err.what);
    }
}

Test(vmfile, paths_are_relative_to_the_file)
{
    char folder[] = "/tmp/tow-vmfile-XXXXXX", path[64], expected[96];
    Towline__V1__VmSpec *spec;
    struct tw_error err = {0};
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/web.yaml", folder);
    snprintf(expected, sizeof expected, "%s/vmlinuz", folder);
    FILE *f = fopen(path, "w");
    fputs(SMALL, f);
    fclose(f);
    cr_assert_eq(tow_vmfile_read(path, &spec, &err), TW_OK, "%s", err.what);
    cr_assert_str_eq(spec->kernel, expected);
    towline__v1__vm_spec__free_unpacked(spec, NULL);
    unlink(path);
    cr_assert_eq(tow_vmfile_read(path, &spec, &err), TW_NOT_FOUND);
    cr_assert_str_eq(err.where, path);
    cr_assert_neq(tow_vmfile_read(folder, &spec, &err), TW_OK, "a folder is no file");
    rmdir(folder);
}
