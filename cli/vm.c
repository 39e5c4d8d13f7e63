#include "cli/command.h"
#include "cli/json.h"
#include "cli/table.h"
#include "cli/vmfile.h"

#include "base/units.h"

#include "towline/v1/vm.pb-c.h"

#define SERVICE (&towline__v1__vm_service__descriptor)

static const char *state_name(Towline__V1__VmState state, char out[TOW_ENUM_TEXT])
{
    return tow_enum_name(&towline__v1__vm_state__descriptor, (int)state, out);
}

static const char *cache_name(const Towline__V1__VmSpec *spec)
{
    bool mesi = spec->cache && spec->cache->kind == TOWLINE__V1__CACHE_KIND__CACHE_KIND_MESI;
    return mesi ? "mesi" : "none";
}

static const Towline__V1__VmSpec *spec_of(const Towline__V1__Vm *vm)
{
    static const Towline__V1__VmSpec empty = TOWLINE__V1__VM_SPEC__INIT;
    return vm->spec ? vm->spec : &empty;
}

static int print_vms(struct tow *tow, Towline__V1__Vm *const *vms, size_t count)
{
    static const struct tow_column columns[] = {
        {"NAME", false},  {"STATE", false},     {"HOST", false}, {"MEMORY", true}, {"VCPUS", true},
        {"CACHE", false}, {"MIGRATION", false}, {"EPOCH", true}, {"REASON", false}};
    struct tow_table table;
    tow_table_init(&table, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < count; i++) {
        const Towline__V1__VmSpec *spec = spec_of(vms[i]);
        char state[TOW_ENUM_TEXT], size[TW_SIZE_TEXT];
        state_name(vms[i]->state, state);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", spec->name);
        tow_table_add(&table, tow_tone_of_state(state), "%s", state);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", vms[i]->host);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", tw_size_format(spec->memory_bytes, size));
        tow_table_add(&table, TOW_TONE_PLAIN, "%u", spec->vcpus ? spec->vcpus : 1);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", cache_name(spec));
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", vms[i]->migration);
        tow_table_add(&table, TOW_TONE_PLAIN, "%llu", (unsigned long long)vms[i]->epoch);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", vms[i]->reason);
    }
    tow_table_print(&table, tow->color_out, tow->out);
    tow_table_free(&table);
    return TOW_EXIT_OK;
}

int tow_vm_list(struct tow *tow, const struct tow_arguments *arguments)
{
    Towline__V1__ListVmsRequest request = TOWLINE__V1__LIST_VMS_REQUEST__INIT;
    const char *host = tow_option_value(arguments, "host");
    int status;
    if (host)
        request.host = tow_text(host);
    ProtobufCMessage *response = tow_ask(tow, SERVICE, "List", &request.base, &status);
    if (!response)
        return status;
    const Towline__V1__ListVmsResponse *list = (const void *)response;
    if (!tow_print_json(tow, response))
        status = print_vms(tow, list->vms, list->n_vms);
    protobuf_c_message_free_unpacked(response, NULL);
    return status;
}

static void print_level(struct tow *tow, const char *name, const Towline__V1__CacheLevel *level)
{
    char size[TW_SIZE_TEXT];
    if (level)
        fprintf(tow->out, "  %-12s %s, %u ways\n", name, tw_size_format(level->size_bytes, size),
                level->ways);
}

static void print_spec(struct tow *tow, const Towline__V1__VmSpec *spec)
{
    char size[TW_SIZE_TEXT], safe[1024];
    FILE *out = tow->out;
    fprintf(out, "memory         %s\n", tw_size_format(spec->memory_bytes, size));
    fprintf(out, "vcpus          %u\n", spec->vcpus ? spec->vcpus : 1);
    fprintf(out, "kernel         %s\n", tow_safe_text(spec->kernel, safe, sizeof safe));
    if (spec->initrd[0])
        fprintf(out, "initrd         %s\n", tow_safe_text(spec->initrd, safe, sizeof safe));
    if (spec->command_line[0])
        fprintf(out, "command line   %s\n", tow_safe_text(spec->command_line, safe, sizeof safe));
    fprintf(out, "cache model    %s\n", cache_name(spec));
    if (spec->cache) {
        print_level(tow, "l1", spec->cache->l1);
        print_level(tow, "l2", spec->cache->l2);
        print_level(tow, "last level", spec->cache->last_level);
    }
}

static void print_vm(struct tow *tow, const Towline__V1__Vm *vm)
{
    char state[TOW_ENUM_TEXT], time[TOW_TIME_TEXT], safe[512];
    FILE *out = tow->out;
    state_name(vm->state, state);
    enum tow_tone tone = tow_tone_of_state(state);
    fprintf(out, "name           %s\n", tow_safe_text(spec_of(vm)->name, safe, sizeof safe));
    fprintf(out, "state          %s%s%s\n", tow_tone_begin(tone, tow->color_out), state,
            tow_tone_end(tone, tow->color_out));
    if (vm->reason[0])
        fprintf(out, "reason         %s\n", tow_safe_text(vm->reason, safe, sizeof safe));
    fprintf(out, "host           %s\n", tow_safe_text(vm->host, safe, sizeof safe));
    fprintf(out, "epoch          %llu\n", (unsigned long long)vm->epoch);
    if (vm->migration[0])
        fprintf(out, "migration      %s\n", tow_safe_text(vm->migration, safe, sizeof safe));
    fprintf(out, "created        %s\n", tow_time_format(vm->created_unix_ms, time));
    print_spec(tow, spec_of(vm));
}

int tow_vm_show(struct tow *tow, const struct tow_arguments *arguments)
{
    Towline__V1__GetVmRequest request = TOWLINE__V1__GET_VM_REQUEST__INIT;
    int status;
    request.name = tow_text(arguments->words[0]);
    ProtobufCMessage *response = tow_ask(tow, SERVICE, "Get", &request.base, &status);
    if (!response)
        return status;
    const Towline__V1__Vm *vm = ((const Towline__V1__GetVmResponse *)response)->vm;
    if (!tow_print_json(tow, response) && vm)
        print_vm(tow, vm);
    protobuf_c_message_free_unpacked(response, NULL);
    return status;
}

/* "vm web-1: running on node-a" */
static void print_outcome(struct tow *tow, const Towline__V1__Vm *vm)
{
    char state[TOW_ENUM_TEXT], name[128], host[128], reason[512];
    if (!vm)
        return;
    fprintf(tow->out, "vm %s: %s on %s%s%s\n", tow_safe_text(spec_of(vm)->name, name, sizeof name),
            state_name(vm->state, state), tow_safe_text(vm->host, host, sizeof host),
            vm->reason[0] ? ": " : "", tow_safe_text(vm->reason, reason, sizeof reason));
}

int tow_vm_create(struct tow *tow, const struct tow_arguments *arguments)
{
    Towline__V1__CreateVmRequest request = TOWLINE__V1__CREATE_VM_REQUEST__INIT;
    const char *file = tow_option_value(arguments, "file");
    const char *host = tow_option_value(arguments, "host");
    struct tw_error err = {0};
    int status;
    if (!file)
        return tow_usage(tow, "vm create", "-f FILE", NULL, "the VM's file is missing");
    if (tow_vmfile_read(file, &request.spec, &err) != TW_OK) {
        tow_fail(tow, &err);
        return TOW_EXIT_USAGE;
    }
    if (host)
        request.host = tow_text(host);
    ProtobufCMessage *response = tow_ask(tow, SERVICE, "Create", &request.base, &status);
    towline__v1__vm_spec__free_unpacked(request.spec, NULL);
    if (!response)
        return status;
    const Towline__V1__Vm *vm = ((const Towline__V1__CreateVmResponse *)response)->vm;
    if (!tow_print_json(tow, response))
        print_outcome(tow, vm);
    if (!vm || vm->state == TOWLINE__V1__VM_STATE__VM_STATE_FAILED)
        status = TOW_EXIT_FAILED;
    protobuf_c_message_free_unpacked(response, NULL);
    return status;
}

int tow_vm_stop(struct tow *tow, const struct tow_arguments *arguments)
{
    Towline__V1__StopVmRequest request = TOWLINE__V1__STOP_VM_REQUEST__INIT;
    int status;
    request.name = tow_text(arguments->words[0]);
    ProtobufCMessage *response = tow_ask(tow, SERVICE, "Stop", &request.base, &status);
    if (!response)
        return status;
    if (!tow_print_json(tow, response))
        print_outcome(tow, ((const Towline__V1__StopVmResponse *)response)->vm);
    protobuf_c_message_free_unpacked(response, NULL);
    return status;
}

int tow_vm_delete(struct tow *tow, const struct tow_arguments *arguments)
{
    Towline__V1__DeleteVmRequest request = TOWLINE__V1__DELETE_VM_REQUEST__INIT;
    char safe[128];
    int status;
    request.name = tow_text(arguments->words[0]);
    ProtobufCMessage *response = tow_ask(tow, SERVICE, "Delete", &request.base, &status);
    if (!response)
        return status;
    if (!tow_print_json(tow, response))
        fprintf(tow->out, "vm %s: deleted\n",
                tow_safe_text(arguments->words[0], safe, sizeof safe));
    protobuf_c_message_free_unpacked(response, NULL);
    return status;
}
