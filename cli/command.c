#include "cli/command.h"

#include "cli/certificates.h"

#include <string.h>

const struct tow_option tow_global_options[] = {
    {'c', "controller", "URL", NULL,
     "the controller [$" TOW_CONTROLLER_VAR ", or " TOW_CONTROLLER_DEFAULT "]"},
    {'o', "output", "FORMAT", "table json",
     "json: the answer of the call with the names of the contract"},
    {'t', "timeout", "DURATION", NULL,
     "for an answer of the controller, or while following, for its return"},
    {0, "ca", "FILE", NULL, "authority that is trusted [ca.crt in $" TOW_TLS_DIR_VAR "]"},
    {0, "crl", "FILE", NULL, "what it has revoked [ca.crl there, when there is one]"},
    {0, "cert", "FILE", NULL, "your certificate [tls.crt there]"},
    {0, "key", "FILE", NULL, "its key [tls.key there]"},
    {0, "insecure", NULL, NULL,
     "plain text to a controller on this machine [$" TOW_INSECURE_VAR "]"},
    {0, "color", "WHEN", "auto always never", "auto: on a terminal, unless NO_COLOR is set"},
    {'h', "help", NULL, NULL, "help on the command"},
    {0, NULL, NULL, NULL, NULL},
};

static const struct tow_option create_options[] = {
    {'f', "file", "FILE", NULL, "the VM in YAML; - reads standard input"},
    {0, "host", "HOST", NULL, "where it starts [the host with the most free memory]"},
    {0, NULL, NULL, NULL, NULL},
};

static const struct tow_option vm_list_options[] = {
    {0, "host", "HOST", NULL, "only VMs of this host"},
    {0, NULL, NULL, NULL, NULL},
};

#define LIMIT_OPTIONS                                                                              \
    {0, "to", "HOST", NULL, "where it goes; auto: the service chooses"},                           \
        {0, "bandwidth", "RATE", NULL,                                                             \
         "at most so much on the wire while the VM runs, as 128MiB/s [unlimited]"},                \
        {0, "downtime", "DURATION", NULL, "budget from stop to resume, as 300ms [300ms]"},         \
        {0, "downtime-ms", "N", NULL, "the same in milliseconds"},                                 \
        {0, "total", "DURATION", NULL,                                                             \
         "budget of the whole; counts for a choice and for pacing [none]"},                        \
        {0, "slow-down", "PERCENT", NULL,                                                          \
         "budget of the guest's slow-down, 1 to 90; with one, pre-copy may slow the writers of "   \
         "hot lines where it would not converge otherwise [none]"},                                \
        {0, "max-rounds", "N", NULL, "rounds after the full copy [30]"},                           \
        {0, "on-no-convergence", "WHAT", "abort stop",                                             \
         "when the rounds are used up: leave the VM at the source, or stop it all the same "       \
         "[abort]"},                                                                               \
        {0, "give-up-after", "DURATION", NULL, "bound on the whole migration [10m]"},              \
        {0, "method", "WHAT", "precopy postcopy hybrid auto",                                      \
         "memory first, the VM first, or rounds and then the VM; auto: by the forecast"},          \
        {0, "predictor", "WHAT", "none spatial stride sequence auto",                              \
         "what orders the lines that follow the VM [as the source's agent is configured]"},        \
        {0, "mirror", "HOST", NULL,                                                                \
         "keep what follows the VM at this third host, too, or at auto; none: do not [none]"},     \
    {                                                                                              \
        0, "skip-verify", NULL, NULL, "do not compare the digests of both memories"                \
    }

static const struct tow_option reconnect_options[] = {
    {0, "from-mirror", NULL, NULL, "wait for the source no longer: the mirror is asked first"},
    {0}};

static const struct tow_option migrate_options[] = {
    {'w', "wait", NULL, NULL, "follow it to its end and show the progress"},
    {0, "plan", "TOKEN", NULL, "run exactly this plan; then nothing else is given"},
    LIMIT_OPTIONS,
    {0, NULL, NULL, NULL, NULL},
};

static const struct tow_option plan_options[] = {
    {0, "for", "DURATION", NULL, "how long the VM is measured, 100ms to 60s [5s]"},
    LIMIT_OPTIONS,
    {0, NULL, NULL, NULL, NULL},
};

static const struct tow_option set_options[] = {
    {0, "bandwidth", "RATE", NULL, "as 64MiB/s, or unlimited"},
    {0, "downtime", "DURATION", NULL, "budget from stop to resume, as 300ms"},
    {0, "slow-down", "PERCENT", NULL,
     "of its time, 1 to 90, that the writers of hot lines may be made to wait in pre-copy; none "
     "ends it at once"},
    {0, NULL, NULL, NULL, NULL},
};

static const struct tow_option migration_list_options[] = {
    {0, "vm", "VM", NULL, "only migrations of this VM"},
    {'n', "limit", "N", NULL, "at most so many, newest first [100]"},
    {0, NULL, NULL, NULL, NULL},
};

static const struct tow_option recover_options[] = {
    {0, "to", "SIDE", "source destination", "who gets the VM"},
    {0, "fenced", NULL, NULL, "your word that the other side's host is off for good"},
    {0, NULL, NULL, NULL, NULL},
};

static const struct tow_option lost_options[] = {
    {0, "lost", "HOST", NULL, "source, destination or mirror that is off for good"},
    {0, "yes", NULL, NULL, "your word that it is; without, only what would become of the VM"},
    {0, NULL, NULL, NULL, NULL},
};

#define SOCKET_OPTION                                                                              \
    {                                                                                              \
        0, "socket", "PATH", NULL,                                                                 \
            "the agent's tracking_socket [$TOWLINE_SOCKET, or /run/towline/agent.sock]"            \
    }
#define METER_OPTIONS                                                                              \
    {'e', "every", "DURATION", NULL,                                                               \
     "length of an epoch; longer where the program would be slowed [1s]"},                         \
        {0, "exact", NULL, NULL, "copy its memory first, so that lines are known at once"},        \
        {0, "attachment", "KIND", "auto process instrumented",                                     \
         "from outside, or by what towline-cc built into it [auto: the latter if it is there]"},   \
        {0, "sharing", NULL, NULL,                                                                 \
         "tell lines that several threads write, and where (instrumented; slower)"},               \
        {0, "accessed", NULL, NULL,                                                                \
         "count the lines that are loaded or stored to, too (instrumented; slower)"},              \
        {0, "bytes", NULL, NULL,                                                                   \
         "count bytes that changed, and lines stored to in vain, of an instrumented program too"}, \
        SOCKET_OPTION

static const struct tow_option track_options[] = {
    METER_OPTIONS,
    {0, "for", "DURATION", NULL, "end after this time [when interrupted; a report: 10s]"},
    {0, "out", "FILE", NULL, "of a report [towline-PID.html]"},
    {0, NULL, NULL, NULL, NULL},
};

static const struct tow_option run_options[] = {
    METER_OPTIONS,
    {0, "report", "FILE", NULL, "write a page with a heat map when it has ended"},
    {0, NULL, NULL, NULL, NULL},
};

static const struct tow_option top_options[] = {
    {'e', "every", "DURATION", NULL, "time between two looks [1s]"},
    {'n', "count", "N", NULL, "end after so many [without end]"},
    SOCKET_OPTION,
    {0, NULL, NULL, NULL, NULL},
};

static const char track_details[] =
    "Shows what a running program writes, by cache lines, and what pages of 4 KiB and 2 MiB would\n"
    "make of it. It is not stopped, but for less than a millisecond at the start, and left as it "
    "was\n"
    "at the end or on Ctrl-C. Asks the agent of this machine; your own programs, or all as root.\n"
    "\n"
    "tow track PID         live; with -o json a line for each epoch\n"
    "tow track report PID  writes a page with a heat map of lines over address and time\n"
    "\n"
    "Counts are of content that changed: a line rewritten with its value is not seen. Pages whose\n"
    "lines are not known yet count as a whole; --exact knows them from the start.\n"
    "A program that was made by towline-cc and has found the agent is asked itself instead: then\n"
    "every line that was stored to counts, and lines are known from the first store on. Of such a\n"
    "program --accessed tells how much of the pages that it uses it really uses, and --bytes how\n"
    "many bytes changed, and how many lines were rewritten with what they held.\n";

static const char run_details[] =
    "Starts a program under tracking, from its first instruction on, and meters it until it ends.\n"
    "The meter goes to standard error. The exit status is the program's, 128 and its signal when "
    "it\n"
    "was killed by one.\n";

static const char top_details[] =
    "Programs that are being tracked by this machine's agent, the busiest first: yours, or all as\n"
    "root. Root also sees the agent's VMs, which are measured while somebody looks. Figures are "
    "those of their last epoch; who tracks a program decides when it ends.\n";

static const struct tow_option events_options[] = {
    {'f', "follow", NULL, NULL, "go on with new events until interrupted"},
    {0, "after", "REV", NULL, "only events after this revision [0: all that are kept]"},
    {0, "subject", "NAME", NULL, "only events of this host, VM or migration"},
    {0, NULL, NULL, NULL, NULL},
};

static const struct tow_option doctor_options[] = {
    {0, "host", "HOST", NULL, "ask this host's agent, through the controller [this machine]"},
    {'a', "all", NULL, NULL, "ask the agents of all hosts"},
    {0, "run-dir", "FOLDER", NULL, "where guests' memory is to be [/dev/shm]"},
    {0, "state-dir", "FOLDER", NULL, "where durable records are to be [not looked at]"},
    {0, "memory", "SIZE", NULL, "for all guests together [half of the machine's]"},
    {0, "qemu", "PROGRAM", NULL, "the QEMU to try [qemu-system-x86_64]"},
    {0, "plugin", "FILE", NULL, "Towline's plugin for it [../lib/towline-plugin.so]"},
    {0, "certificate", "FILE", NULL, "the agent's certificate, PEM [not looked at]"},
    {0, "revoked", "FILE", NULL, "the authority's ca.crl, to look for it there [not looked at]"},
    {0, "rdma", NULL, NULL, "a host without usable RDMA is unfit"},
    {0, NULL, NULL, NULL, NULL},
};

static const char doctor_details[] =
    "Tries what Towline needs of a host: memory limits, room, rights, kernel features, RDMA\n"
    "devices, QEMU and its plugins, certificates, clocks. For each that warns or fails it says\n"
    "what was found, what is needed and how to mend it. Without --host or --all it looks at the\n"
    "machine that it runs on and needs no controller; run it there as the user of the agent.\n"
    "\n"
    "Exit status: 0 nothing to mend, 9 warnings, 10 failures. With -o json: worst, and for each\n"
    "host its results with name, verdict (ok, warn, fail, skipped), found, needed, mend.\n";
static const struct tow_option pki_init_options[] = {
    {0, "dir", "DIR", NULL, "folder of the authority [pki]"},
    {0, "days", "N", NULL, "how long it is good [3650]"},
    {0, NULL, NULL, NULL, NULL},
};

static const struct tow_option pki_issue_options[] = {
    {0, "dir", "DIR", NULL, "folder of the authority [pki]"},
    {0, "out", "DIR", NULL, "where the files go [ROLE-NAME in the authority's folder]"},
    {0, "address", "LIST", NULL,
     "DNS names and IP addresses of a server, with commas [127.0.0.1,::1,localhost]"},
    {0, "days", "N", NULL, "how long it is good [365]"},
    {0, NULL, NULL, NULL, NULL},
};

static const char pki_issue_details[] =
    "ROLE is operator, viewer, controller or agent. NAME is that of the host for an agent, else "
    "of\n"
    "the person or program: lower-case letters, digits and '-'. The folder has ca.crt, ca.crl,\n"
    "tls.crt and tls.key; nothing that exists is overwritten. docs/security.md says what each "
    "role\n"
    "may do.\n";

static const struct tow_option pki_revoke_options[] = {
    {0, "dir", "DIR", NULL, "folder of the authority [pki]"},
    {0, NULL, NULL, NULL, NULL},
};

static const char pki_revoke_details[] =
    "CERTIFICATE is a PEM file, or the folder that has it as tls.crt. It is put on the list\n"
    "ca.crl in the authority's folder. The list counts where it is: bring it to every host and\n"
    "person, over the old one; agents and controllers take it within seconds.\n";

static const char create_details[] =
    "The file is a YAML mapping; sizes as 256MiB, paths relative to the file:\n"
    "\n"
    "  name: web-1               # [a-z0-9][a-z0-9-]{0,62}, unique in the cluster\n"
    "  memory: 256MiB            # a multiple of 4096 bytes, at least 4MiB\n"
    "  kernel: images/vmlinuz    # path on the host's machine\n"
    "  vcpus: 1                  # 1 to 64 [1]\n"
    "  initrd: images/web.cpio   # [none]\n"
    "  command_line: console=ttyS0 quiet\n"
    "  cache:                    # where stores become link messages [kind: none]\n"
    "    kind: mesi              # none: at once; mesi: through the caches below\n"
    "    l1: {size: 32KiB, ways: 8}\n"
    "    l2: {size: 256KiB, ways: 8}\n"
    "    last_level: {size: 8MiB, ways: 16}\n"
    "  migration:                # where the options of vm migrate say nothing\n"
    "    method: auto            # precopy, postcopy, hybrid, auto\n"
    "    downtime: 300ms         # budgets; also total: 1m, slow_down: 20 (per cent)\n"
    "    bandwidth: 128MiB       # a second; also on_no_convergence, max_rounds and\n"
    "    give_up_after: 10m\n";

static const char plan_details[] =
    "Measures the running VM for a few seconds and forecasts what its migration would come to, by\n"
    "each method: rounds, bytes, total time, downtime. Nothing is moved, and the VM is not "
    "slowed.\n"
    "The token runs exactly that (tow vm migrate --plan TOKEN), or says what has changed: the VM "
    "has\n"
    "moved, its host is gone, it writes far more. It expires after 10 minutes.\n"
    "\n"
    "Only what the guest writes is seen, not what it reads. What follows a VM by post-copy is "
    "asked\n"
    "for by reads, too, so the slow-down told is a lower bound.\n"
    "\n"
    "Exit status: 0 planned, 6 the plan is refused (the reasons say by which rule).\n";

static const char pause_details[] =
    "While the VM is at the source, nothing is sent until the resume; what it writes is tracked "
    "on.\n"
    "Once its memory follows it, only the background stands still: what the guest waits for is "
    "always\n"
    "sent. A pause ends by itself after 5 minutes, and --give-up-after counts on.\n";

static const char why_details[] =
    "ID is of a migration, a plan (p-...) or a refusal (r-...): every host and method that was "
    "judged,\n"
    "by which rule, the value that was found, the limit, and the verdict.\n";

static const char migrate_details[] =
    "VM HOST, VM --to HOST, VM --to auto, or --plan TOKEN. What no option says comes from the "
    "VM's\n"
    "file (migration:), then from the controller's configuration.\n"
    "\n"
    "Without --wait it returns as soon as the migration is recorded. With --wait it ends with the\n"
    "figures and with exit status 0 when the VM has moved, 6 when it has not. An interruption "
    "ends\n"
    "only the watching. --timeout is then how long the controller may be away [60s].\n"
    "\n"
    "With --method postcopy or hybrid the VM is lost with its source's host before the rest of "
    "its\n"
    "memory has followed it, unless a third host keeps that, too. --mirror HOST insists on that\n"
    "host; with --mirror auto the VM moves without one when none does it in time.\n";

static const char recover_details[] =
    "For a hand-over whose other side is lost for good. It is refused while both sides can be\n"
    "asked: then the truth is found without you. If the other host is not really off, two copies\n"
    "of the VM may run: pull its plug first.\n";

static const char resolve_details[] =
    "For a migration that waits for a host that never returns. What is right is decided from what\n"
    "is known of both sides: the copy that is left is resumed, unless the lost host is known to\n"
    "have run the VM; then the VM is lost. A mirror that holds what a running copy misses takes\n"
    "over from a lost source; one that does not answer is waited for, or declared lost as well.\n"
    "Without --yes it only says which, and what is at risk.\n"
    "Should the host come back, its copy is removed. If it is not really off, two copies of the "
    "VM\n"
    "may run until then: pull its plug first.\n";

static const char events_details[] =
    "With -o json: one event a line. A note on standard error tells when events between the asked\n"
    "and the oldest kept revision are gone. --timeout is how long the controller may be away "
    "while\n"
    "following [60s].\n";

#define CREATE_MS 60000u
#define DOCTOR_MS 40000u

const struct tow_command tow_commands[] = {
    {.name = "status",
     .help = "controller, hosts, VMs and running migrations at a glance",
     .run = tow_status},
    {.name = "doctor",
     .help = "what a host lacks, and how to mend it",
     .details = doctor_details,
     .timeout_ms = DOCTOR_MS,
     .options = doctor_options,
     .run = tow_doctor},
    {.group = "host",
     .name = "list",
     .help = "hosts, their state and memory",
     .run = tow_host_list},
    {.group = "host",
     .name = "show",
     .arguments = "HOST",
     .words_min = 1,
     .words_max = 1,
     .help = "one host and the VMs that it holds",
     .run = tow_host_show},
    {.group = "vm",
     .name = "create",
     .help = "start a VM from a file",
     .details = create_details,
     .timeout_ms = CREATE_MS,
     .options = create_options,
     .run = tow_vm_create},
    {.group = "vm",
     .name = "list",
     .help = "VMs, where they run and how",
     .options = vm_list_options,
     .run = tow_vm_list},
    {.group = "vm",
     .name = "show",
     .arguments = "VM",
     .words_min = 1,
     .words_max = 1,
     .help = "one VM",
     .run = tow_vm_show},
    {.group = "vm",
     .name = "stop",
     .arguments = "VM",
     .words_min = 1,
     .words_max = 1,
     .help = "end the VM's process; its record stays",
     .run = tow_vm_stop},
    {.group = "vm",
     .name = "delete",
     .arguments = "VM",
     .words_min = 1,
     .words_max = 1,
     .help = "end the VM's process and forget it",
     .run = tow_vm_delete},
    {.group = "vm",
     .name = "plan",
     .arguments = "VM [HOST]",
     .words_min = 1,
     .words_max = 2,
     .help = "what moving a running VM would come to",
     .details = plan_details,
     .options = plan_options,
     .run = tow_vm_plan},
    {.group = "vm",
     .name = "migrate",
     .arguments = "[VM [HOST]]",
     .words_max = 2,
     .help = "move a running VM to another host",
     .details = migrate_details,
     .options = migrate_options,
     .run = tow_vm_migrate},
    {.group = "migration",
     .name = "list",
     .help = "migrations, newest first",
     .options = migration_list_options,
     .run = tow_migration_list},
    {.group = "migration",
     .name = "show",
     .arguments = "ID",
     .words_min = 1,
     .words_max = 1,
     .help = "one migration with its rounds",
     .run = tow_migration_show},
    {.group = "migration",
     .name = "cancel",
     .arguments = "ID",
     .words_min = 1,
     .words_max = 1,
     .help = "end it; the VM runs on at the source",
     .run = tow_migration_cancel},
    {.group = "migration",
     .name = "switch",
     .arguments = "ID",
     .words_min = 1,
     .words_max = 1,
     .help = "hybrid: move the VM now, the rest of its memory follows",
     .run = tow_migration_switch},
    {.group = "migration",
     .name = "set",
     .arguments = "ID",
     .words_min = 1,
     .words_max = 1,
     .help = "change bandwidth or downtime budget while it runs",
     .options = set_options,
     .run = tow_migration_set},
    {.group = "migration",
     .name = "pause",
     .arguments = "ID",
     .words_min = 1,
     .words_max = 1,
     .help = "send nothing but what the guest waits for",
     .details = pause_details,
     .run = tow_migration_pause},
    {.group = "migration",
     .name = "resume",
     .arguments = "ID",
     .words_min = 1,
     .words_max = 1,
     .help = "end a pause",
     .details = pause_details,
     .run = tow_migration_resume},
    {.group = "migration",
     .name = "reconnect",
     .arguments = "ID",
     .words_min = 1,
     .words_max = 1,
     .help = "post-copy without a path: connect to the source again, or to the mirror",
     .options = reconnect_options,
     .run = tow_migration_reconnect},
    {.group = "migration",
     .name = "why",
     .arguments = "ID",
     .words_min = 1,
     .words_max = 1,
     .help = "why it went there and so, or why it was refused",
     .details = why_details,
     .run = tow_migration_why},
    {.group = "migration",
     .name = "recover",
     .arguments = "ID",
     .words_min = 1,
     .words_max = 1,
     .help = "decide a hand-over whose other side is lost",
     .details = recover_details,
     .options = recover_options,
     .run = tow_migration_recover},
    {.group = "migration",
     .name = "resolve",
     .arguments = "ID",
     .words_min = 1,
     .words_max = 1,
     .help = "end a migration that waits for a host that never returns",
     .details = resolve_details,
     .options = lost_options,
     .run = tow_migration_resolve},
    {.name = "track",
     .arguments = "[report] PID",
     .words_min = 1,
     .words_max = 2,
     .help = "meter what a running program writes, by cache lines",
     .details = track_details,
     .options = track_options,
     .run = tow_track},
    {.name = "run",
     .arguments = "-- PROGRAM ...",
     .takes_program = true,
     .help = "start a program under the same meter",
     .details = run_details,
     .options = run_options,
     .run = tow_run},
    {.name = "top",
     .help = "programs that are being tracked here, and VMs: what they write",
     .details = top_details,
     .options = top_options,
     .run = tow_top},
    {.name = "events",
     .help = "what happened, in order",
     .details = events_details,
     .options = events_options,
     .run = tow_events},
    {.group = "pki",
     .name = "init",
     .help = "make an authority that signs certificates",
     .options = pki_init_options,
     .run = tow_pki_init},
    {.group = "pki",
     .name = "issue",
     .arguments = "ROLE NAME",
     .words_min = 2,
     .words_max = 2,
     .choices = "operator viewer controller agent",
     .help = "make a certificate for an agent, a controller or a person",
     .details = pki_issue_details,
     .options = pki_issue_options,
     .run = tow_pki_issue},
    {.group = "pki",
     .name = "revoke",
     .arguments = "CERTIFICATE",
     .words_min = 1,
     .words_max = 1,
     .help = "have a certificate count no more",
     .details = pki_revoke_details,
     .options = pki_revoke_options,
     .run = tow_pki_revoke},
    {.name = "version", .help = "version of this program", .run = tow_version},
    {.name = "completion",
     .arguments = "SHELL",
     .words_min = 1,
     .words_max = 1,
     .choices = "bash",
     .help = "shell completion: source <(tow completion bash)",
     .run = tow_completion},
    {.name = "help",
     .arguments = "[COMMAND | exit-codes]",
     .words_max = 2,
     .help = "this help, or that of a command",
     .run = tow_help},
    {0},
};

const char *tow_option_value(const struct tow_arguments *arguments, const char *name)
{
    for (unsigned i = arguments->option_count; i-- > 0;)
        if (strcmp(arguments->options[i].option->name, name) == 0)
            return arguments->options[i].value;
    return NULL;
}
