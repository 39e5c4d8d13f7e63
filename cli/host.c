#include "cli/command.h"
#include "cli/json.h"
#include "cli/meter.h"
#include "cli/table.h"

#include "base/clock.h"
#include "base/units.h"

#include "towline/v1/host.pb-c.h"
#include "towline/v1/vm.pb-c.h"

#define SERVICE (&towline__v1__host_service__descriptor)

static const Towline__V1__HostDescription *description_of(const Towline__V1__Host *host)
{
    static const Towline__V1__HostDescription empty = TOWLINE__V1__HOST_DESCRIPTION__INIT;
    return host->description ? host->description : &empty;
}

static const char *state_name(const Towline__V1__Host *host, char out[TOW_ENUM_TEXT])
{
    return tow_enum_name(&towline__v1__host_state__descriptor, (int)host->state, out);
}

static void print_hosts(struct tow *tow, Towline__V1__Host *const *hosts, size_t count)
{
    static const struct tow_column columns[] = {
        {"NAME", false}, {"STATE", false},  {"VMS", true},   {"MEMORY", true},  {"FREE", true},
        {"CPUS", true},  {"FABRIC", false}, {"SEEN", false}, {"VERSION", false}};
    struct tow_table table;
    tow_table_init(&table, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < count; i++) {
        const Towline__V1__HostDescription *d = description_of(hosts[i]);
        char state[TOW_ENUM_TEXT], size[TW_SIZE_TEXT], ago[TOW_TIME_TEXT];
        state_name(hosts[i], state);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", d->name);
        tow_table_add(&table, tow_tone_of_state(state), "%s", state);
        tow_table_add(&table, TOW_TONE_PLAIN, "%u", hosts[i]->vms);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", tw_size_format(d->memory_capacity_bytes, size));
        tow_table_add(&table, TOW_TONE_PLAIN, "%s",
                      tw_size_format(hosts[i]->memory_free_bytes, size));
        tow_table_add(&table, TOW_TONE_PLAIN, "%u", d->cpus);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", d->fabric);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s",
                      tow_ago_format(hosts[i]->last_seen_unix_ms, tw_wall_ms(), ago));
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", d->version);
    }
    tow_table_print(&table, tow->color_out, tow->out);
    tow_table_free(&table);
}

int tow_host_list(struct tow *tow, const struct tow_arguments *arguments)
{
    Towline__V1__ListHostsRequest request = TOWLINE__V1__LIST_HOSTS_REQUEST__INIT;
    int status;
    (void)arguments;
    ProtobufCMessage *response = tow_ask(tow, SERVICE, "List", &request.base, &status);
    if (!response)
        return status;
    const Towline__V1__ListHostsResponse *list = (const void *)response;
    if (!tow_print_json(tow, response))
        print_hosts(tow, list->hosts, list->n_hosts);
    protobuf_c_message_free_unpacked(response, NULL);
    return status;
}

static void print_host(struct tow *tow, const Towline__V1__Host *host)
{
    const Towline__V1__HostDescription *d = description_of(host);
    char state[TOW_ENUM_TEXT], size[TW_SIZE_TEXT], text[TOW_TIME_TEXT], safe[256];
    FILE *out = tow->out;
    state_name(host, state);
    enum tow_tone tone = tow_tone_of_state(state);
    fprintf(out, "name           %s\n", tow_safe_text(d->name, safe, sizeof safe));
    fprintf(out, "state          %s%s%s\n", tow_tone_begin(tone, tow->color_out), state,
            tow_tone_end(tone, tow->color_out));
    fprintf(out, "last seen      %s\n",
            tow_ago_format(host->last_seen_unix_ms, tw_wall_ms(), text));
    fprintf(out, "lease until    %s\n", tow_time_format(host->lease_expires_unix_ms, text));
    fprintf(out, "memory         %s, ", tw_size_format(d->memory_capacity_bytes, size));
    fprintf(out, "%s free\n", tw_size_format(host->memory_free_bytes, size));
    fprintf(out, "cpus           %u\n", d->cpus);
    fprintf(out, "rpc            %s\n", tow_safe_text(d->rpc_url, safe, sizeof safe));
    fprintf(out, "fabric         %s", tow_safe_text(d->fabric, safe, sizeof safe));
    fprintf(out, ": %s\n", tow_safe_text(d->fabric_reason, safe, sizeof safe));
    fprintf(out, "by tcp         %s\n", tow_safe_text(d->fabric_address, safe, sizeof safe));
    fprintf(out, "by verbs       %s\n",
            *d->verbs_address ? tow_safe_text(d->verbs_address, safe, sizeof safe) : "not here");
    fprintf(out, "version        %s\n\n", tow_safe_text(d->version, safe, sizeof safe));
}

/* How this host reaches, or last reached, others. */
static void print_paths(struct tow *tow, const Towline__V1__HostDescription *d)
{
    static const struct tow_column columns[] = {
        {"PEER", false}, {"FABRIC", false}, {"IN USE BY", false}, {"REASON", false}};
    struct tow_table table;
    if (d->n_paths == 0)
        return;
    tow_table_init(&table, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < d->n_paths; i++) {
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", d->paths[i]->peer);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", d->paths[i]->fabric);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", d->paths[i]->migration);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", d->paths[i]->reason);
    }
    tow_table_print(&table, tow->color_out, tow->out);
    tow_table_free(&table);
    fputc('\n', tow->out);
}

/* What the VM wrote in a second, and what pages make of it. */
static void add_dirty(struct tow_table *table, const Towline__V1__VmDirty *d)
{
    char size[TW_SIZE_TEXT], times[2][TOW_TIME_TEXT];
    if (!d || d->duration_us == 0) {
        for (unsigned i = 0; i < 3; i++)
            tow_table_add(table, TOW_TONE_PLAIN, "-");
        return;
    }
    const uint64_t bytes = d->lines * TOW_LINE_BYTES;
    tow_table_add(table, TOW_TONE_PLAIN, "%s/s",
                  tw_size_format((uint64_t)((double)bytes * 1e6 / (double)d->duration_us), size));
    tow_table_add(table, TOW_TONE_PLAIN, "%s",
                  tow_times_format(d->pages * TOW_PAGE_BYTES, bytes, times[0]));
    tow_table_add(table, TOW_TONE_PLAIN, "%s",
                  tow_times_format(d->regions * TOW_REGION_BYTES, bytes, times[1]));
}

static void print_reports(struct tow *tow, Towline__V1__VmReport *const *vms, size_t count)
{
    static const struct tow_column columns[] = {
        {"VM", false},        {"STATE", false}, {"MEMORY", true}, {"EPOCH", true},
        {"MIGRATION", false}, {"PID", true},    {"LINES", true},  {"WRITES", true},
        {"4 KIB", true},      {"2 MIB", true},  {"REASON", false}};
    struct tow_table table;
    if (count == 0) {
        fputs("no VMs\n", tow->out);
        return;
    }
    tow_table_init(&table, columns, sizeof columns / sizeof *columns);
    for (size_t i = 0; i < count; i++) {
        char state[TOW_ENUM_TEXT], size[TW_SIZE_TEXT];
        tow_enum_name(&towline__v1__vm_state__descriptor, (int)vms[i]->state, state);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", vms[i]->name);
        tow_table_add(&table, tow_tone_of_state(state), "%s", state);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", tw_size_format(vms[i]->memory_bytes, size));
        tow_table_add(&table, TOW_TONE_PLAIN, "%llu", (unsigned long long)vms[i]->epoch);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", vms[i]->migration);
        tow_table_add(&table, TOW_TONE_PLAIN, "%llu", (unsigned long long)vms[i]->pid);
        tow_table_add(&table, TOW_TONE_PLAIN, "%llu", (unsigned long long)vms[i]->lines_written);
        add_dirty(&table, vms[i]->dirty);
        tow_table_add(&table, TOW_TONE_PLAIN, "%s", vms[i]->reason);
    }
    tow_table_print(&table, tow->color_out, tow->out);
    tow_table_free(&table);
}

int tow_host_show(struct tow *tow, const struct tow_arguments *arguments)
{
    Towline__V1__GetHostRequest request = TOWLINE__V1__GET_HOST_REQUEST__INIT;
    int status;
    request.name = tow_text(arguments->words[0]);
    ProtobufCMessage *response = tow_ask(tow, SERVICE, "Get", &request.base, &status);
    if (!response)
        return status;
    const Towline__V1__GetHostResponse *answer = (const void *)response;
    if (!tow_print_json(tow, response) && answer->host) {
        print_host(tow, answer->host);
        print_paths(tow, description_of(answer->host));
        print_reports(tow, answer->vms, answer->n_vms);
    }
    protobuf_c_message_free_unpacked(response, NULL);
    return status;
}
