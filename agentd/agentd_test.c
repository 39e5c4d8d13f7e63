#include "agentd/agent.h"
#include "base/log.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];

static void make_folder(void)
{
    tw_log_configure("test", TW_LOG_OFF);
    strcpy(folder, "/tmp/towline-agentd-XXXXXX");
    cr_assert(mkdtemp(folder));
}

static void remove_folder(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    cr_assert_eq(system(command), 0);
}

TestSuite(record, .init = make_folder, .fini = remove_folder);
TestSuite(config, .init = make_folder, .fini = remove_folder);

static Towline__V1__VmSpec spec_of(const char *name)
{
    Towline__V1__VmSpec s = TOWLINE__V1__VM_SPEC__INIT;
    s.name = (char *)(uintptr_t)name;
    s.memory_bytes = 64u << 20;
    s.kernel = (char *)(uintptr_t) "/boot/x";
    return s;
}

struct seen {
    unsigned count;
    uint64_t epoch;
    char name[64];
};

static void see(void *ctx, const Towline__V1__VmRecord *record)
{
    struct seen *s = ctx;
    s->count++;
    s->epoch = record->epoch;
    snprintf(s->name, sizeof s->name, "%s", record->spec->name);
}

Test(record, survives_reopen)
{
    struct tw_record_store *store;
    struct tw_error err;
    struct seen seen = {0};
    Towline__V1__VmSpec spec = spec_of("web-1");
    Towline__V1__VmRecord r = TOWLINE__V1__VM_RECORD__INIT;
    r.spec = &spec;
    r.epoch = 7;
    cr_assert_eq(tw_record_store_open(folder, &store, &err), TW_OK);
    cr_assert_eq(tw_record_vm_save(store, &r, &err), TW_OK);
    r.epoch = 8;
    cr_assert_eq(tw_record_vm_save(store, &r, &err), TW_OK);
    tw_record_store_close(store);
    cr_assert_eq(tw_record_store_open(folder, &store, &err), TW_OK);
    tw_record_vm_each(store, see, &seen);
    cr_assert(seen.count == 1 && seen.epoch == 8);
    cr_assert_str_eq(seen.name, "web-1");
    cr_assert_eq(tw_record_vm_remove(store, "web-1", &err), TW_OK);
    tw_record_vm_each(store, see, &seen);
    cr_assert_eq(seen.count, 1, "removed, so not seen again");
    tw_record_store_close(store);
}

static unsigned staged_files(void)
{
    char path[160];
    unsigned n = 0;
    for (unsigned i = 0; i < TW_RECORDS_STAGED; i++) {
        snprintf(path, sizeof path, "%s/vms/.staged-%u", folder, i);
        n += access(path, F_OK) == 0;
    }
    return n;
}

Test(record, staged_is_no_record_until_it_is_saved)
{
    struct tw_record_store *store, *other;
    struct tw_error err;
    struct seen seen = {0};
    Towline__V1__VmSpec spec = spec_of("web-1");
    Towline__V1__VmRecord r = TOWLINE__V1__VM_RECORD__INIT;
    r.spec = &spec;
    r.epoch = 7;
    cr_assert_eq(tw_record_store_open(folder, &store, &err), TW_OK);
    cr_assert_eq(tw_record_vm_save(store, &r, &err), TW_OK);
    for (r.epoch = 8; r.epoch < 20; r.epoch++)
        tw_record_vm_stage(store, &r);
    cr_assert_eq(staged_files(), TW_RECORDS_STAGED);
    cr_assert_neq(tw_record_store_open(folder, &other, &err), TW_OK);
    cr_assert_eq(staged_files(), TW_RECORDS_STAGED, "a refused agent touches nothing");
    cr_assert(tw_record_vm_each(store, see, &seen));
    cr_assert_eq(seen.count, 1);
    cr_assert_eq(seen.epoch, 7, "what is staged says nothing");
    for (r.epoch = 12; r.epoch < 20; r.epoch++) { /* half of them staged, half replaced since */
        cr_assert_eq(tw_record_vm_save(store, &r, &err), TW_OK);
        cr_assert(tw_record_vm_each(store, see, &seen));
        cr_assert_eq(seen.epoch, r.epoch);
    }
    cr_assert_eq(staged_files(), 0);
    tw_record_vm_stage(store, &r);
    tw_record_store_close(store);
    cr_assert_eq(staged_files(), 0);
}

Test(record, second_agent_is_refused)
{
    struct tw_record_store *a, *b = NULL;
    struct tw_error err;
    cr_assert_eq(tw_record_store_open(folder, &a, &err), TW_OK);
    cr_assert_eq(tw_record_store_open(folder, &b, &err), TW_FAILED_PRECONDITION);
    tw_record_store_close(a);
}

/* One flipped bit anywhere is noticed, and the file is left for a person to look at. */
Test(record, broken_file_is_not_believed)
{
    struct tw_record_store *store;
    struct tw_error err;
    char path[128];
    Towline__V1__VmSpec spec = spec_of("web-1");
    Towline__V1__VmRecord r = TOWLINE__V1__VM_RECORD__INIT;
    r.spec = &spec;
    cr_assert_eq(tw_record_store_open(folder, &store, &err), TW_OK);
    cr_assert_eq(tw_record_vm_save(store, &r, &err), TW_OK);
    snprintf(path, sizeof path, "%s/vms/web-1", folder);
    struct stat st;
    cr_assert_eq(stat(path, &st), 0);
    for (off_t at = 0; at < st.st_size; at++) {
        struct seen seen = {0};
        uint8_t byte;
        if (at >= 12 && at < 16)
            continue; /* reserved */
        int fd = open(path, O_RDWR);
        cr_assert_eq(pread(fd, &byte, 1, at), 1);
        byte ^= 0x10;
        cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
        cr_assert_not(tw_record_vm_each(store, see, &seen), "byte %d", (int)at);
        cr_assert_eq(seen.count, 0, "byte %d", (int)at);
        byte ^= 0x10;
        cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
        close(fd);
    }
    cr_assert_eq(truncate(path, st.st_size - 1), 0);
    struct seen seen = {0};
    tw_record_vm_each(store, see, &seen);
    cr_assert_eq(seen.count, 0);
    tw_record_store_close(store);
}

Test(record, outcome_is_kept_and_names_are_checked)
{
    struct tw_record_store *store;
    struct tw_error err;
    Towline__V1__MigrationRecord r = TOWLINE__V1__MIGRATION_RECORD__INIT;
    cr_assert_eq(tw_record_store_open(folder, &store, &err), TW_OK);
    r.migration = (char *)(uintptr_t) "../../etc/passwd";
    cr_assert_neq(tw_record_migration_save(store, &r, &err), TW_OK);
    r.migration = (char *)(uintptr_t) "m-1";
    r.hand_over = TW_HAND_OVER_COMMITTED;
    cr_assert_eq(tw_record_migration_save(store, &r, &err), TW_OK);
    Towline__V1__MigrationRecord *back = tw_record_migration_load(store, "m-1");
    cr_assert(back && back->hand_over == TW_HAND_OVER_COMMITTED);
    towline__v1__migration_record__free_unpacked(back, NULL);
    cr_assert_null(tw_record_migration_load(store, "m-2"));
    tw_record_store_close(store);
}

#ifdef TOWLINE_FAULTS
Test(record, full_disk_keeps_the_old_record)
{
    struct tw_record_store *store;
    struct tw_error err;
    struct seen seen = {0};
    Towline__V1__VmSpec spec = spec_of("web-1");
    Towline__V1__VmRecord r = TOWLINE__V1__VM_RECORD__INIT;
    r.spec = &spec;
    r.epoch = 1;
    cr_assert_eq(tw_record_store_open(folder, &store, &err), TW_OK);
    cr_assert_eq(tw_record_vm_save(store, &r, &err), TW_OK);
    setenv("TOWLINE_FAULT", "record.write:fail", 1);
    r.epoch = 2;
    cr_assert_eq(tw_record_vm_save(store, &r, &err), TW_RESOURCE_EXHAUSTED);
    tw_record_vm_each(store, see, &seen);
    cr_assert_eq(seen.epoch, 1);
    tw_record_store_close(store);
}
#endif

static enum tw_code load_text(const char *text, struct tw_agent_config *config,
                              struct tw_error *err)
{
    char path[96];
    snprintf(path, sizeof path, "%s/agent.yaml", folder);
    FILE *f = fopen(path, "w");
    fputs(text, f);
    fclose(f);
    return tw_agent_config_load(path, config, err);
}

Test(config, good_file)
{
    struct tw_agent_config c;
    struct tw_error err;
    enum tw_code code = load_text("name: node-a\nstate_dir: /var/lib/towline\nrun_dir: /dev/shm/t\n"
                                  "memory: 1GiB\nplugin: /bin/sh\nlog_level: debug\n"
                                  "tls: {ca: /a.crt, certificate: /t.crt, key: /t.key}\n",
                                  &c, &err);
    cr_assert_eq(code, TW_OK, "%s", err.what);
    cr_assert_eq(c.memory_bytes, UINT64_C(1) << 30);
    cr_assert_str_eq(c.listen, "tls+tcp://127.0.0.1:7102");
    cr_assert_str_eq(c.tls.certificate, "/t.crt");
    cr_assert_eq(c.fabric, TW_AGENT_FABRIC_AUTO);
    cr_assert_str_eq(c.fabric_listen, "127.0.0.1:7202");
    cr_assert_str_eq(c.verbs_listen, "127.0.0.1:7203");
    cr_assert_eq(c.fabric_timeout_ns, 5 * TW_SEC);
    cr_assert_eq(c.verbs_queues, 1);
    cr_assert_eq(c.verbs_unencrypted, TW_AGENT_REFUSE, "plain text has to be asked for");
    cr_assert_eq(c.log_level, 0u);
}

Test(config, plain_text_has_to_be_asked_for_and_stays_at_home)
{
    static const struct {
        const char *text;
        bool fine;
    } cases[] = {
        {"listen: \"tcp://127.0.0.1:0\"\ninsecure: true\n", true},
        {"listen: \"tcp://127.0.0.1:0\"\n", false},
        {"listen: \"tcp://10.0.0.1:0\"\ninsecure: true\n", false},
        {"insecure: true\n", false}, /* the usual door has TLS */
        {"listen: \"tcp://127.0.0.1:0\"\ninsecure: true\ncontroller: \"tcp://10.0.0.1:1\"\n",
         false},
        {"listen: \"tcp://127.0.0.1:0\"\ninsecure: true\nadvertise: \"tcp://0.0.0.0:1\"\n", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tw_agent_config c;
        struct tw_error err = {0};
        char text[400];
        snprintf(text, sizeof text, "name: a\nstate_dir: /a\nrun_dir: /b\nplugin: /bin/sh\n%s",
                 cases[i].text);
        cr_expect_eq(load_text(text, &c, &err), cases[i].fine ? TW_OK : TW_INVALID_ARGUMENT,
                     "%zu: %s", i, err.what);
    }
}

Test(config, errors_name_the_line)
{
    struct tw_agent_config c;
    struct tw_error err;
    const char *bad[] = {
        "name: Node A\nstate_dir: /a\nrun_dir: /b\n",
        "name: a\nstate_dir: relative\nrun_dir: /b\n",
        "name: a\nstate_dir: /a\nrun_dir: /b\nmemory: 1 apple\n",
        "name: a\nstate_dir: /a\nrun_dir: /b\nmemroy: 1GiB\n",
        "name: a\nstate_dir: /a\nrun_dir: /b\nfabric_timeout: 61s\n",
        "name: a\nstate_dir: /a\nrun_dir: /b\nswitchover_hook: /nowhere/hook\n",
        "name: a\nname: b\nstate_dir: /a\nrun_dir: /b\n",
        "name: a\nstate_dir: /a\nrun_dir: /b\nfabric: \"127.0.0.1:7202\"\n",
        "name: a\nstate_dir: /a\nrun_dir: /b\nverbs_queues: 9\n",
        "name: a\nstate_dir: /a\nrun_dir: /b\nverbs_unencrypted: yes\n",
    };
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_assert_eq(load_text(bad[i], &c, &err), TW_INVALID_ARGUMENT, "case %u", i);
        cr_assert(strstr(err.where, "agent.yaml:"), "%s", err.where);
    }
}

static bool await_hook(struct tw_hook *hook, enum tw_code *code, struct tw_error *err)
{
    for (int i = 0; i < 20000; i++) {
        if (tw_hook_poll(hook, code, err))
            return true;
        usleep(1000);
    }
    return false;
}

Test(config, hook_status_decides)
{
    char path[96];
    snprintf(path, sizeof path, "%s/hook", folder);
    FILE *f = fopen(path, "w");
    fputs("#!/bin/sh\nexit $CODE\n", f);
    fclose(f);
    cr_assert_eq(chmod(path, 0700), 0);
    const char *good[] = {"CODE=0", NULL}, *bad[] = {"CODE=3", NULL};
    struct tw_hook *hook;
    struct tw_error err;
    enum tw_code code;
    cr_assert_eq(tw_hook_start(path, good, 20 * TW_SEC, &hook, &err), TW_OK);
    cr_assert(await_hook(hook, &code, &err));
    cr_assert_eq(code, TW_OK);
    tw_hook_free(hook);
    cr_assert_eq(tw_hook_start(path, bad, 20 * TW_SEC, &hook, &err), TW_OK);
    cr_assert(await_hook(hook, &code, &err));
    cr_assert_eq(code, TW_ABORTED);
    cr_assert_str_eq(err.given, "3");
    tw_hook_free(hook);
}

Test(config, hook_that_hangs_is_killed)
{
    const char *none[] = {NULL};
    char path[96];
    snprintf(path, sizeof path, "%s/hook", folder);
    FILE *f = fopen(path, "w");
    fputs("#!/bin/sh\nexec sleep 100\n", f);
    fclose(f);
    cr_assert_eq(chmod(path, 0700), 0);
    struct tw_hook *hook;
    struct tw_error err;
    enum tw_code code;
    cr_assert_eq(tw_hook_start(path, none, 50 * TW_MS, &hook, &err), TW_OK);
    cr_assert(await_hook(hook, &code, &err));
    cr_assert_eq(code, TW_DEADLINE_EXCEEDED);
    tw_hook_free(hook);
}
