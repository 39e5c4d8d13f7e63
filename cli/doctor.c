/* tow doctor: the probes of this machine, or of hosts through the controller and their agents. */
#include "cli/doctor.h"
#include "cli/command.h"
#include "cli/json.h"
#include "cli/table.h"

#include "base/clock.h"
#include "base/units.h"
#include "hosts/probe/probe.h"
#include "pki/end.h"
#include "pki/revoke.h"

#include "towline/v1/host.pb-c.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SERVICE (&towline__v1__host_service__descriptor)

/* ---- Results as the contract has them ---------------------------------------------------------
 */

static void copy(char *to, size_t size, const char *from)
{
    snprintf(to, size, "%s", from);
}

/* A verdict that this build does not know is not a good one. */
static enum tw_probe_verdict verdict_of(Towline__V1__ProbeVerdict verdict)
{
    switch (verdict) {
    case TOWLINE__V1__PROBE_VERDICT__PROBE_VERDICT_SKIPPED:
        return TW_PROBE_SKIPPED;
    case TOWLINE__V1__PROBE_VERDICT__PROBE_VERDICT_OK:
        return TW_PROBE_OK;
    case TOWLINE__V1__PROBE_VERDICT__PROBE_VERDICT_WARN:
        return TW_PROBE_WARN;
    default:
        return TW_PROBE_FAIL;
    }
}

static void take_results(struct tow_diagnosis *d, const Towline__V1__Diagnosis *from)
{
    for (size_t i = 0; i < from->n_results && d->count < TOW_RESULTS_MAX; i++) {
        const Towline__V1__ProbeResult *p = from->results[i];
        struct tw_probe_result *r = &d->results[d->count++];
        r->verdict = verdict_of(p->verdict);
        copy(r->name, sizeof r->name, p->name);
        copy(r->found, sizeof r->found, p->found);
        copy(r->needed, sizeof r->needed, p->needed);
        copy(r->mend, sizeof r->mend, p->mend);
    }
}

static void compare_clocks(struct tow_diagnosis *d, const Towline__V1__DiagnoseHostResponse *r,
                           uint64_t asked_us, uint64_t returned_us)
{
    const Towline__V1__ClockExchange *x = r->agent_clock;
    char pair[96];
    const struct tw_probe_exchange own = {asked_us, returned_us, r->received_unix_us,
                                          r->answered_unix_us};
    snprintf(pair, sizeof pair, "%s against the controller", d->host);
    if (x && d->count < TOW_RESULTS_MAX)
        tw_probe_clock("clock-host", pair,
                       &(struct tw_probe_exchange){x->asked_unix_us, x->returned_unix_us,
                                                   x->received_unix_us, x->answered_unix_us},
                       &d->results[d->count++]);
    if (d->count < TOW_RESULTS_MAX)
        tw_probe_clock("clock-controller", "the controller against this machine", &own,
                       &d->results[d->count++]);
}

/* ---- Asking -----------------------------------------------------------------------------------
 */

static enum tw_code ask_host(struct tow *tow, const char *host, struct tow_diagnosis *d,
                             struct tw_error *err)
{
    Towline__V1__DiagnoseHostRequest request = TOWLINE__V1__DIAGNOSE_HOST_REQUEST__INIT;
    ProtobufCMessage *response;
    uint64_t asked_us = tw_wall_us();
    *d = (struct tow_diagnosis){0};
    copy(d->host, sizeof d->host, host);
    request.name = tow_text(host);
    enum tw_code code = tow_call(tow, SERVICE, "Diagnose", &request.base, &response, err);
    if (code != TW_OK)
        return code;
    const Towline__V1__DiagnoseHostResponse *answer = (const void *)response;
    uint64_t returned_us = tw_wall_us();
    if (answer->diagnosis)
        take_results(d, answer->diagnosis);
    compare_clocks(d, answer, asked_us, returned_us);
    protobuf_c_message_free_unpacked(response, NULL);
    return TW_OK;
}

/* Of many hosts, one that cannot be asked is a finding like any other. */
static void unreachable(struct tow_diagnosis *d, const struct tw_error *err)
{
    struct tw_probe_result *r = &d->results[d->count++];
    char text[640];
    *r = (struct tw_probe_result){.name = "agent", .verdict = TW_PROBE_FAIL};
    copy(r->found, sizeof r->found, tw_error_text(err, text, sizeof text));
    copy(r->needed, sizeof r->needed, "an agent that answers the controller");
    copy(r->mend, sizeof r->mend, "on that host: systemctl status towline-agent; tow doctor");
}

static int ask_all(struct tow *tow, struct tow_diagnosis **out, size_t *count)
{
    Towline__V1__ListHostsRequest request = TOWLINE__V1__LIST_HOSTS_REQUEST__INIT;
    int status;
    ProtobufCMessage *response = tow_ask(tow, SERVICE, "List", &request.base, &status);
    if (!response)
        return status;
    const Towline__V1__ListHostsResponse *list = (const void *)response;
    *out = calloc(list->n_hosts + 1, sizeof **out);
    for (size_t i = 0; *out && i < list->n_hosts; i++) {
        const Towline__V1__HostDescription *d = list->hosts[i]->description;
        struct tw_error err = {0};
        struct tow_diagnosis *diagnosis = &(*out)[(*count)++];
        if (ask_host(tow, d ? d->name : "", diagnosis, &err) != TW_OK)
            unreachable(diagnosis, &err);
    }
    protobuf_c_message_free_unpacked(response, NULL);
    return TOW_EXIT_OK;
}

/* ---- This machine -----------------------------------------------------------------------------
 */

/* Installed in ../lib beside bin/, as the agent looks for it. */
static const char *plugin_beside(char *path, size_t size)
{
    char self[256];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    for (int up = 0; up < 2; up++) {
        char *slash = strrchr(self, '/');
        if (slash)
            *slash = 0;
    }
    snprintf(path, size, "%s/lib/towline-plugin.so", self);
    return access(path, R_OK) == 0 ? path : NULL;
}

static int probe_here(struct tow *tow, const struct tow_arguments *arguments,
                      struct tow_diagnosis *d)
{
    char beside[320];
    const char *memory = tow_option_value(arguments, "memory");
    struct tw_probe_settings settings = {.run_dir = tow_option_value(arguments, "run-dir"),
                                         .state_dir = tow_option_value(arguments, "state-dir"),
                                         .qemu = tow_option_value(arguments, "qemu"),
                                         .plugin = tow_option_value(arguments, "plugin"),
                                         .certificate = tow_option_value(arguments, "certificate"),
                                         .certificate_end = tw_pki_end,
                                         .revoked = tow_option_value(arguments, "revoked"),
                                         .certificate_revoked = tw_pki_revoked,
                                         .rdma_required = tow_option_value(arguments, "rdma")};
    if (memory && !tw_size_parse(memory, &settings.memory_bytes))
        return tow_usage(tow, "--memory", "a size, as 8GiB", memory, "not usable");
    if (!settings.plugin)
        settings.plugin = plugin_beside(beside, sizeof beside);
    _Static_assert(TOW_RESULTS_MAX >= TW_PROBES_MAX, "room for every probe");
    d->count = tw_probe_all(&settings, &tw_probe_machine, d->results);
    return TOW_EXIT_OK;
}

/* ---- The command ------------------------------------------------------------------------------
 */

/* What describes this machine says nothing about another. */
static int check_options(struct tow *tow, const struct tow_arguments *arguments, bool elsewhere)
{
    static const char *const here_only[] = {"run-dir", "state-dir",   "memory",  "qemu",
                                            "plugin",  "certificate", "revoked", "rdma"};
    char where[32];
    if (tow_option_value(arguments, "all") && tow_option_value(arguments, "host"))
        return tow_usage(tow, "doctor", "--host or --all", "both", "whom to ask is not clear");
    for (size_t i = 0; elsewhere && i < sizeof here_only / sizeof *here_only; i++) {
        snprintf(where, sizeof where, "--%s", here_only[i]);
        if (tow_option_value(arguments, here_only[i]))
            return tow_usage(tow, where, NULL, NULL,
                             "only for this machine: an agent uses its configuration");
    }
    return TOW_EXIT_OK;
}

int tow_doctor(struct tow *tow, const struct tow_arguments *arguments)
{
    const char *host = tow_option_value(arguments, "host");
    bool all = tow_option_value(arguments, "all");
    struct tow_diagnosis *diagnoses = NULL;
    struct tw_error err = {0};
    size_t count = 0;
    int status = check_options(tow, arguments, host || all);
    if (status == TOW_EXIT_OK && all) {
        status = ask_all(tow, &diagnoses, &count);
    } else if (status == TOW_EXIT_OK && (diagnoses = calloc(1, sizeof *diagnoses))) {
        count = 1;
        if (!host)
            status = probe_here(tow, arguments, diagnoses);
        else if (ask_host(tow, host, diagnoses, &err) != TW_OK)
            status = tow_fail(tow, &err);
    }
    if (status == TOW_EXIT_OK)
        status = tow_diagnoses_print(tow, diagnoses, count);
    free(diagnoses);
    return status;
}
