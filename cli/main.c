/* tow: the operators' command. */
#include "cli/certificates.h"
#include "cli/command.h"
#include "cli/options.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TIMEOUT_DEFAULT_MS 10000u

static bool color_for(const char *when, FILE *file)
{
    const char *no_color = getenv("NO_COLOR");
    const char *terminal = getenv("TERM");
    if (when && strcmp(when, "always") == 0)
        return true;
    if (when && strcmp(when, "never") == 0)
        return false;
    return isatty(fileno(file)) && !(no_color && *no_color) &&
           !(terminal && strcmp(terminal, "dumb") == 0);
}

static enum tw_code globals_take(struct tow *tow, const struct tow_arguments *arguments,
                                 struct tw_error *err)
{
    const char *controller = tow_option_value(arguments, "controller");
    const char *output = tow_option_value(arguments, "output");
    const char *timeout = tow_option_value(arguments, "timeout");
    const char *color = tow_option_value(arguments, "color");
    if (!controller)
        controller = getenv(TOW_CONTROLLER_VAR);
    tow->controller = controller && *controller ? controller : TOW_CONTROLLER_DEFAULT;
    tow->json = output && strcmp(output, "json") == 0;
    tow->color_out = color_for(color, tow->out);
    tow->color_err = color_for(color, tow->err);
    tow->timeout_ms = arguments->command && arguments->command->timeout_ms
                          ? arguments->command->timeout_ms
                          : TIMEOUT_DEFAULT_MS;
    tow->timeout_given = timeout != NULL;
    if (!strstr(tow->controller, "://"))
        return tw_fail(err, TW_INVALID_ARGUMENT, "--controller",
                       "a URL, as " TOW_CONTROLLER_DEFAULT, tow->controller, "not usable");
    enum tw_code code = tow_certificates_take(tow, arguments, err);
    if (code != TW_OK)
        return code;
    return timeout ? tow_milliseconds_parse("--timeout", timeout, &tow->timeout_ms, err) : TW_OK;
}

int main(int argc, char **argv)
{
    struct tow tow = {.controller = "", .out = stdout, .err = stderr};
    struct tow_arguments arguments;
    struct tw_error err = {0};
    tw_log_configure("tow", TW_LOG_OFF);
    if (tow_arguments_parse(argc, argv, &arguments, &err) != TW_OK ||
        globals_take(&tow, &arguments, &err) != TW_OK)
        return tow_fail(&tow, &err);
    if (!arguments.command || tow_option_value(&arguments, "help"))
        return tow_help(&tow, &arguments);
    int status = arguments.command->run(&tow, &arguments);
    tow_close(&tow);
    /* A full disk behind the pipe must not look like success. */
    if (fflush(stdout) != 0 || ferror(stdout))
        return status ? status : TOW_EXIT_FAILED;
    return status;
}
