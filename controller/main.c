/* towline-controller: catalogue of hosts and VMs, driver of migrations. */
#include "base/clock.h"
#include "base/log.h"
#include "controller/config.h"
#include "controller/controller.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define STOP_SECONDS 8

enum { EXIT_FINE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

struct arguments {
    const char *config;
    bool check, help, version;
    bool level_given; /* on the command line: the file's does not count */
};

static const char usage[] =
    "usage: towline-controller [OPTIONS]\n"
    "  --config FILE      YAML file; the options below go before it\n"
    "  --listen URL       RPC server [tls+tcp://127.0.0.1:7100]\n"
    "  --http URL         /metrics, /healthz, /readyz, like http://127.0.0.1:7180 [none]\n"
    "  --store FILE       SQLite file [towline.db]\n"
    "  --lease-ms N       a host that is silent that long is dead [3000]\n"
    "  --log-level LEVEL  debug, info, warn, error or off [info]\n"
    "  --insecure BOOL    true: plain text, tcp:// on loopback [false]\n"
    "  --check            check the configuration and end\n"
    "  --help, --version\n"
    "signals: TERM and INT end it, HUP reads log level and certificates again\n"
    "exit status: 0 fine, 1 failed, 2 wrong usage or configuration\n";

static const struct {
    const char *option, *key, *suffix;
} overrides[] = {
    {"--listen", "listen", ""},    {"--http", "http", ""},           {"--store", "store", ""},
    {"--lease-ms", "lease", "ms"}, {"--log-level", "log_level", ""}, {"--insecure", "insecure", ""},
};

static int complain(const struct tw_error *err)
{
    char text[600];
    fprintf(stderr, "towline-controller: %s\n", tw_error_text(err, text, sizeof text));
    return err->code == TW_INVALID_ARGUMENT || err->code == TW_NOT_FOUND ? EXIT_USAGE : EXIT_FAILED;
}

static enum tw_code unknown_option(const char *given, struct tw_error *err)
{
    static const char *const names[] = {"--config",   "--listen",    "--http",     "--store",
                                        "--lease-ms", "--log-level", "--insecure", "--check",
                                        "--help",     "--version",   NULL};
    const char *near = tw_config_nearest(given, names);
    char expected[64];
    snprintf(expected, sizeof expected, "perhaps %s", near ? near : "--help");
    return tw_fail(err, TW_INVALID_ARGUMENT, "command line", expected, given, "unknown option");
}

static enum tw_code override(const char *option, const char *value,
                             struct tw_controller_config *config, struct tw_error *err)
{
    char text[1100];
    for (size_t i = 0; i < sizeof overrides / sizeof *overrides; i++) {
        if (strcmp(overrides[i].option, option) != 0)
            continue;
        snprintf(text, sizeof text, "%.1050s%s", value, overrides[i].suffix);
        return tw_config_set(option, overrides[i].key, text, tw_controller_keys,
                             tw_controller_key_count, config, err);
    }
    return unknown_option(option, err);
}

static bool is_override(const char *option)
{
    for (size_t i = 0; i < sizeof overrides / sizeof *overrides; i++)
        if (strcmp(overrides[i].option, option) == 0)
            return true;
    return false;
}

/* Two passes: the file first, wherever it is named, then what overrides it. */
static enum tw_code read_arguments(int argc, char **argv, bool second, struct arguments *a,
                                   struct tw_controller_config *config, struct tw_error *err)
{
    for (int i = 1; i < argc; i++) {
        enum tw_code code = TW_OK;
        bool valued = strcmp(argv[i], "--config") == 0 || is_override(argv[i]);
        const char *value = valued && i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--check") == 0)
            a->check = true;
        else if (strcmp(argv[i], "--help") == 0)
            a->help = true;
        else if (strcmp(argv[i], "--version") == 0)
            a->version = true;
        else if (!valued)
            code = unknown_option(argv[i], err);
        else if (!value)
            code = tw_fail(err, TW_INVALID_ARGUMENT, "command line", "a value", "none",
                           "%s stands alone", argv[i]);
        else if (strcmp(argv[i], "--config") == 0)
            a->config = value;
        else if (second)
            code = override(argv[i], value, config, err);
        if (code != TW_OK)
            return code;
        if (valued) {
            a->level_given |= strcmp(argv[i], "--log-level") == 0;
            i++;
        }
    }
    return TW_OK;
}

static enum tw_code configure(int argc, char **argv, struct arguments *a,
                              struct tw_controller_config *config, struct tw_error *err)
{
    tw_controller_config_defaults(config);
    enum tw_code code = read_arguments(argc, argv, false, a, config, err);
    if (code != TW_OK || a->help || a->version)
        return code;
    if (a->config)
        code = tw_config_read(a->config, tw_controller_keys, tw_controller_key_count, config, err);
    if (code == TW_OK)
        code = read_arguments(argc, argv, true, a, config, err);
    return code == TW_OK ? tw_controller_config_check(config, err) : code;
}

static void reload_level(const struct arguments *a)
{
    struct tw_controller_config config;
    struct tw_error err = {0};
    if (!a->config || a->level_given)
        return;
    tw_controller_config_defaults(&config);
    if (tw_config_read(a->config, tw_controller_keys, tw_controller_key_count, &config, &err) !=
        TW_OK) {
        tw_log(TW_LOG_ERROR, "controller", "configuration not read", "where=%s what=\"%s\"",
               err.where, err.what);
        return;
    }
    tw_log_configure("controller", (enum tw_log_level)config.log_level);
    tw_log(TW_LOG_INFO, "controller", "log level read again", "file=%s", a->config);
}

static void *close_thread(void *controller)
{
    tw_controller_close(controller);
    return NULL;
}

/* A call to an agent may take its time. What is left undone then is as after a kill, and the next
 * start goes on with it: so we do not wait for ever. */
static void stop(struct tw_controller *controller)
{
    pthread_t thread;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += STOP_SECONDS;
    if (pthread_create(&thread, NULL, close_thread, controller) != 0)
        _exit(EXIT_FINE);
    if (pthread_timedjoin_np(thread, NULL, &until) != 0) {
        tw_log(TW_LOG_WARN, "controller", "did not end in time, left", "after_s=%d", STOP_SECONDS);
        _exit(EXIT_FINE);
    }
}

static int serve(const struct arguments *a, const struct tw_controller_config *config)
{
    struct tw_controller *controller;
    struct tw_error err = {0};
    sigset_t signals;
    int number = 0;
    tw_log_configure("controller", (enum tw_log_level)config->log_level);
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    if (tw_controller_open(config, &controller, &err) != TW_OK) {
        complain(&err);
        return EXIT_FAILED;
    }
    tw_log(TW_LOG_INFO, "controller", "serving", "version=%s url=%s http=%s store=%s",
           TOWLINE_VERSION, tw_controller_url(controller), tw_controller_http_url(controller),
           config->store);
    while (sigwait(&signals, &number) == 0 && number == SIGHUP) {
        reload_level(a);
        tw_controller_reload(controller);
    }
    tw_log(TW_LOG_INFO, "controller", "ending", "signal=%s", strsignal(number));
    stop(controller);
    return EXIT_FINE;
}

int main(int argc, char **argv)
{
    struct arguments a = {0};
    struct tw_controller_config config;
    struct tw_error err = {0};
    if (configure(argc, argv, &a, &config, &err) != TW_OK)
        return complain(&err);
    if (a.help) {
        fputs(usage, stdout);
        return EXIT_FINE;
    }
    if (a.version) {
        printf("towline-controller %s\n", TOWLINE_VERSION);
        return EXIT_FINE;
    }
    if (a.check) {
        printf("%s: good\n", a.config ? a.config : "configuration");
        return EXIT_FINE;
    }
    return serve(&a, &config);
}
