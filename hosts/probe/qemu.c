/* QEMU: started with our plugin, and asked what it made of it. No version decides. */
#include "hosts/probe/inside.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define OUTPUT_SIZE 2048u
#define NO_PLUGIN   "/nonexistent/towline-probe.so"

/* The first line of --version, for people. */
static void version_of(const struct tw_probe *probe, const char *qemu, char out[64])
{
    char output[OUTPUT_SIZE], *const argv[] = {(char *)(uintptr_t)qemu,
                                               (char *)(uintptr_t) "--version", NULL};
    static const char word[] = "QEMU emulator version ";
    int status;
    snprintf(out, 64, "unknown version");
    if (probe->system->run(probe->system->ctx, argv, TW_PROBE_RUN_MS, output, sizeof output,
                           &status) != 0 ||
        status != 0)
        return;
    const char *begin = strstr(output, word);
    if (begin)
        snprintf(out, 64, "version %.*s", (int)strcspn(begin + sizeof word - 1, " (\n"),
                 begin + sizeof word - 1);
}

/* A machine without anything, and without its plugin's arguments: our plugin refuses to be
 * installed, and QEMU ends. To come so far it has been found, loaded and its interface accepted. */
static int start(const struct tw_probe *probe, const char *qemu, const char *plugin, char *output,
                 int *status)
{
    char *const argv[] = {(char *)(uintptr_t)qemu,
                          (char *)(uintptr_t) "-M",
                          (char *)(uintptr_t) "none",
                          (char *)(uintptr_t) "-accel",
                          (char *)(uintptr_t) "tcg",
                          (char *)(uintptr_t) "-nodefaults",
                          (char *)(uintptr_t) "-no-user-config",
                          (char *)(uintptr_t) "-display",
                          (char *)(uintptr_t) "none",
                          (char *)(uintptr_t) "-S",
                          (char *)(uintptr_t) "-plugin",
                          (char *)(uintptr_t)plugin,
                          NULL};
    return probe->system->run(probe->system->ctx, argv, TW_PROBE_RUN_MS, output, OUTPUT_SIZE,
                              status);
}

static const struct {
    const char *said; /* by QEMU */
    enum tw_probe_verdict verdict;
    const char *found, *mend;
} answers[] = {
    {"qemu_plugin_install returned error", TW_PROBE_OK, "loads Towline's plugin", ""},
    {"plugin interface not enabled", TW_PROBE_FAIL, "was built without plugins",
     "apt-get install qemu-system-x86, or build QEMU with --enable-plugins"},
    {"API version", TW_PROBE_FAIL, "wants another version of the plugin interface",
     "build Towline with -DTOWLINE_PLUGIN_API=N, with the N that QEMU names"},
    {"invalid option", TW_PROBE_FAIL, "knows no -plugin", "apt-get install qemu-system-x86"},
    {NO_PLUGIN, TW_PROBE_OK, "takes plugins (Towline's own was not tried)", ""},
    {"Could not load plugin", TW_PROBE_FAIL, "cannot load Towline's plugin",
     "set plugin in the agent's configuration to towline-plugin.so of this build"},
};

static void judge(const struct tw_probe *probe, const char *version, const char *output, int status)
{
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        if (!strstr(output, answers[i].said))
            continue;
        tw_probe_mend(probe, "%s", answers[i].mend);
        tw_probe_says(probe, answers[i].verdict, "%s, %s", version, answers[i].found);
        return;
    }
    tw_probe_says(probe, TW_PROBE_FAIL, "%s, exit status %d: %.*s", version, status,
                  output[0] ? (int)strcspn(output, "\n") : 16,
                  output[0] ? output : "it said nothing");
}

void tw_probe_qemu(const struct tw_probe *probe)
{
    const char *qemu = tw_probe_or(probe->settings->qemu, "qemu-system-x86_64");
    const char *plugin = tw_probe_or(probe->settings->plugin, NO_PLUGIN);
    char version[64], output[OUTPUT_SIZE];
    int status = 0;
    tw_probe_needs(probe, "QEMU for x86-64 that loads TCG plugins");
    tw_probe_mend(probe,
                  "apt-get install qemu-system-x86, or set qemu in the agent's configuration");
    int failed = start(probe, qemu, plugin, output, &status);
    if (failed == ETIMEDOUT) {
        tw_probe_says(probe, TW_PROBE_FAIL, "%s did not end in %u s", qemu, TW_PROBE_RUN_MS / 1000);
        return;
    }
    if (failed) {
        tw_probe_says(probe, TW_PROBE_FAIL, "%s: %s", qemu, strerror(failed));
        return;
    }
    version_of(probe, qemu, version);
    judge(probe, version, output, status);
}
