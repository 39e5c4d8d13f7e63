/* Starting, watching and ending the processes of a test cluster. */
#include "tests/cluster/cluster.h"

#include "base/clock.h"
#include "base/log.h"
#include "pki/issue.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define READY_MS 30000u

void tw_sleep_ms(unsigned ms)
{
    usleep(ms * 1000);
}

bool tw_await_file(const char *path, unsigned within_ms)
{
    for (unsigned ms = 0; ms < within_ms; ms += 2) {
        if (access(path, F_OK) == 0)
            return true;
        tw_sleep_ms(2);
    }
    return false;
}

void tw_touch(const char *path)
{
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    cr_assert(fd >= 0, "%s: %s", path, strerror(errno));
    close(fd);
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    cr_assert(f, "%s", path);
    fputs(text, f);
    fclose(f);
}

/* What the doors of a process need. */
static void door_text(const struct tw_cluster *c, const char *name, char *out, size_t size)
{
    if (c->tls)
        snprintf(out, size,
                 "tls: {ca: %s/tls/%s/ca.crt, certificate: %s/tls/%s/tls.crt, "
                 "key: %s/tls/%s/tls.key, crl: %s/tls/%s/ca.crl}\n",
                 c->dir, name, c->dir, name, c->dir, name, c->dir, name);
    else
        snprintf(out, size, "insecure: true\n");
}

static const char *lines_host(const struct tw_cluster *c, enum tw_role role)
{
    return c->own_network ? c->lines_host[role] : "127.0.0.1";
}

static void configure(struct tw_cluster *c, enum tw_role role)
{
    char path[128], text[2048], door[512];
    const char *name = c->processes[role].name;
    door_text(c, name, door, sizeof door);
    snprintf(path, sizeof path, "%s/%s.yaml", c->dir, name);
    if (role == TW_CONTROLLER)
        snprintf(text, sizeof text,
                 "listen: \"%s\"\n%sstore: %s/store.db\nlease: 2s\nheartbeat: 100ms\n%s",
                 c->controller_url, door, c->dir, c->settings[role]);
    else
        snprintf(text, sizeof text,
                 "name: %s\nlisten: \"%stcp://127.0.0.1:0\"\nfabric_listen: \"%s:0\"\n%s"
                 "controller: \"%s\"\nstate_dir: %s/%s-state\n"
                 "run_dir: %s/%s-run\nplugin: %s\n%s",
                 name, c->tls ? "tls+" : "", lines_host(c, role), door, c->controller_url, c->dir,
                 name, c->dir, name, TOWLINE_PLUGIN,
                 strstr(c->settings[role], "memory:") ? "" : "memory: 1GiB\n");
    if (role != TW_CONTROLLER)
        strncat(text, c->settings[role], sizeof text - strlen(text) - 1);
    write_text(path, text);
}

void tw_cluster_spawn(struct tw_cluster *c, enum tw_role role)
{
    struct tw_process *p = &c->processes[role];
    char config[128], log[128], fault[600];
    configure(c, role);
    snprintf(config, sizeof config, "%s/%s.yaml", c->dir, p->name);
    snprintf(log, sizeof log, "%s/%s.log", c->dir, p->name);
    snprintf(fault, sizeof fault, "TOWLINE_FAULT=%s", p->fault);
    const char *program = role == TW_CONTROLLER ? TOWLINE_CONTROLLER : TOWLINE_AGENT;
    char path[600];
    snprintf(path, sizeof path, "PATH=%s", getenv("PATH"));
    /* A test that is killed takes them with it. */
    const char *const argv[] = {"setpriv",  "--pdeathsig", "KILL", program,
                                "--config", config,        NULL};
    char *envp[] = {fault, path, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, log, O_CREAT | O_WRONLY | O_APPEND, 0600);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    int failed = posix_spawnp(&p->pid, argv[0], &actions, NULL, (char **)(uintptr_t)argv, envp);
    posix_spawn_file_actions_destroy(&actions);
    cr_assert_eq(failed, 0, "%s: %s", program, strerror(failed));
}

bool tw_cluster_process_ended(struct tw_cluster *c, enum tw_role role)
{
    struct tw_process *p = &c->processes[role];
    if (p->pid > 0 && waitpid(p->pid, NULL, WNOHANG) == p->pid)
        p->pid = 0;
    return p->pid == 0;
}

void tw_cluster_kill(struct tw_cluster *c, enum tw_role role)
{
    struct tw_process *p = &c->processes[role];
    if (p->pid > 0) {
        kill(p->pid, SIGKILL);
        waitpid(p->pid, NULL, 0);
    }
    p->pid = 0;
}

/* A port that the controller gets again after each restart: below those that the kernel hands out
 * by itself, and another for each test process. */
static unsigned free_port(void)
{
    for (unsigned i = 0; i < 100; i++) {
        unsigned port = 15000 + ((unsigned)getpid() * 7 + i) % 15000;
        struct sockaddr_in a = {.sin_family = AF_INET,
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                .sin_port = htons((uint16_t)port)};
        int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool taken = bind(s, (struct sockaddr *)&a, sizeof a) != 0;
        close(s);
        if (!taken)
            return port;
    }
    cr_assert_fail("no free port");
    return 0;
}

static void folder_open(struct tw_cluster *c)
{
    *c = (struct tw_cluster){0};
    tw_log_configure("test", TW_LOG_OFF);
    strcpy(c->dir, "/dev/shm/towline-test-XXXXXX");
    cr_assert(mkdtemp(c->dir));
    c->processes[TW_CONTROLLER].name = "controller";
    c->processes[TW_AGENT_A].name = "node-a";
    c->processes[TW_AGENT_B].name = "node-b";
    c->processes[TW_AGENT_C].name = "node-c";
}

static void client_open(struct tw_cluster *c)
{
    struct tw_error err = {0};
    snprintf(c->controller_url, sizeof c->controller_url, "%stcp://127.0.0.1:%u",
             c->tls ? "tls+" : "", free_port());
    const struct tw_rpc_client_config config = {.url = c->controller_url,
                                                .tls = c->tls,
                                                .expected = {TW_ROLE_CONTROLLER, NULL},
                                                .insecure = !c->tls};
    cr_assert_eq(tw_rpc_client_open(&config, &c->client, &err), TW_OK, "%s", err.what);
}

void tw_cluster_open(struct tw_cluster *c)
{
    folder_open(c);
    client_open(c);
}

/* A route that leads nowhere takes new connections and those that stand. */
static void route(struct tw_cluster *c, const char *what)
{
    char command[96];
    for (unsigned role = TW_AGENT_A; role <= TW_AGENT_B; role++) {
        snprintf(command, sizeof command, "ip route %s blackhole %s table local", what,
                 lines_host(c, (enum tw_role)role));
        cr_assert_eq(system(command), 0, "%s", command);
    }
}

void tw_cluster_cut(struct tw_cluster *c)
{
    cr_assert(c->own_network);
    route(c, "add");
}

void tw_cluster_break(struct tw_cluster *c)
{
    char command[128];
    cr_assert(c->own_network);
    for (unsigned role = TW_AGENT_A; role <= TW_AGENT_B; role++) {
        const char *host = lines_host(c, (enum tw_role)role);
        snprintf(command, sizeof command,
                 "ss -t -K -H src %s >/dev/null && ss -t -K -H dst %s >/dev/null", host, host);
        cr_assert_eq(system(command), 0, "%s", command);
    }
}

void tw_cluster_mend(struct tw_cluster *c)
{
    route(c, "del");
}

void tw_cluster_open_apart(struct tw_cluster *c)
{
    const char *network = getenv("TOWLINE_TEST_NETWORK");
    cr_assert(network && strcmp(network, "apart") == 0, "expected a network to cut: run %s",
              "tests/cluster/apart PROGRAM");
    folder_open(c);
    c->own_network = true;
    /* Tests side by side share it: each has addresses of its own. */
    for (unsigned role = 0; role < TW_PROCESSES; role++)
        snprintf(c->lines_host[role], sizeof *c->lines_host, "127.%u.%u.%u",
                 1 + (unsigned)getpid() / 250 % 250, (unsigned)getpid() % 250, 10 + role);
    client_open(c);
}

static void issue(const struct tw_cluster *c, enum tw_identity_role role, const char *name,
                  const char *folder)
{
    static const char *const here[] = {"127.0.0.1"};
    const struct tw_pki_leaf leaf = {
        .role = role, .name = name, .addresses = here, .address_count = 1, .ends_s = 86400};
    struct tw_error err = {0};
    char authority[96], out[128];
    snprintf(authority, sizeof authority, "%s/pki", c->dir);
    snprintf(out, sizeof out, "%s/tls/%s", c->dir, folder);
    cr_assert_eq(tw_pki_issue(authority, out, &leaf, &err), TW_OK, "%s: %s", err.where, err.what);
}

void tw_cluster_open_tls(struct tw_cluster *c)
{
    struct tw_tls_files files;
    char path[96];
    folder_open(c);
    snprintf(path, sizeof path, "%s/pki", c->dir);
    cr_assert_eq(tw_pki_init(path, 30, NULL), TW_OK);
    snprintf(path, sizeof path, "%s/tls", c->dir);
    cr_assert_eq(mkdir(path, 0700), 0);
    issue(c, TW_ROLE_CONTROLLER, "main", "controller");
    issue(c, TW_ROLE_AGENT, "node-a", "node-a");
    issue(c, TW_ROLE_AGENT, "node-b", "node-b");
    issue(c, TW_ROLE_OPERATOR, "test", "test");
    snprintf(path, sizeof path, "%s/tls/test", c->dir);
    cr_assert_eq(tw_tls_files_in(path, &files, NULL), TW_OK);
    cr_assert_eq(tw_tls_open(&files, &c->tls, NULL), TW_OK);
    client_open(c);
}

static unsigned agents_alive(struct tw_cluster *c)
{
    Towline__V1__ListHostsRequest r = TOWLINE__V1__LIST_HOSTS_REQUEST__INIT;
    ProtobufCMessage *m;
    unsigned alive = 0;
    if (tw_rpc_call(c->client, &towline__v1__host_service__descriptor, "List", &r.base, 500,
                    TW_RPC_IDEMPOTENT, &m, NULL))
        return 0;
    const Towline__V1__ListHostsResponse *hosts = (const Towline__V1__ListHostsResponse *)m;
    for (size_t i = 0; i < hosts->n_hosts; i++)
        alive += hosts->hosts[i]->state == TOWLINE__V1__HOST_STATE__HOST_STATE_ALIVE;
    protobuf_c_message_free_unpacked(m, NULL);
    return alive;
}

void tw_cluster_await_agents(struct tw_cluster *c)
{
    uint64_t end = tw_now(&tw_monotonic) + READY_MS * TW_MS;
    while (tw_now(&tw_monotonic) < end) {
        if (agents_alive(c) == TW_CLUSTER_AGENTS + c->third)
            return;
        tw_sleep_ms(10);
    }
    cr_assert_fail("the agents did not register in time; logs in %s", c->dir);
}

/* ---- The guests' processes ---------------------------------------------------------------------
 */

/* Whether the process' command line names the agent's run folder: then it is its QEMU. */
static bool is_guest(const struct tw_cluster *c, enum tw_role agent, pid_t pid)
{
    char needle[160], path[64], text[8192];
    snprintf(needle, sizeof needle, "%s/%s-run/", c->dir, c->processes[agent].name);
    snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0)
        close(fd);
    return n > 0 && memmem(text, (size_t)n, needle, strlen(needle));
}

pid_t tw_cluster_guest_pid(const struct tw_cluster *c, enum tw_role agent)
{
    pid_t found = 0;
    DIR *d = opendir("/proc");
    for (struct dirent *e; d && !found && (e = readdir(d));) {
        pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);
        if (pid > 0 && is_guest(c, agent, pid))
            found = pid;
    }
    if (d)
        closedir(d);
    return found;
}

/* Processor time of the process' vCPU threads so far, in nanoseconds. A paused or incoming machine
 * spends none there. */
static uint64_t vcpu_time(pid_t pid)
{
    char path[300], text[64];
    uint64_t total = 0;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        char name[32] = "";
        snprintf(path, sizeof path, "/proc/%d/task/%.20s/comm", pid, e->d_name);
        FILE *f = fopen(path, "r");
        if (!f)
            continue;
        if (!fgets(name, sizeof name, f))
            name[0] = 0;
        fclose(f);
        if (strncmp(name, "CPU ", 4) != 0)
            continue;
        snprintf(path, sizeof path, "/proc/%d/task/%.20s/schedstat", pid, e->d_name);
        f = fopen(path, "r");
        if (f && fgets(text, sizeof text, f))
            total += strtoull(text, NULL, 10);
        if (f)
            fclose(f);
    }
    if (d)
        closedir(d);
    return total;
}

/* A QEMU takes longer to start than it is until the next look, which is over all processes. */
#define LOOK_TURNS 4u

static void *monitor(void *arg)
{
    struct tw_cluster *c = arg;
    uint64_t before[2] = {0};
    bool both = false; /* in the sample before */
    for (unsigned turn = 0; !atomic_load(&c->monitor_stop); turn++) {
        unsigned ran = 0;
        for (unsigned i = 0; i < 2; i++) {
            pid_t pid = c->monitored[i];
            if (pid && !is_guest(c, TW_AGENT_A + i, pid))
                pid = 0;
            if (!pid && turn % LOOK_TURNS == 0)
                pid = tw_cluster_guest_pid(c, TW_AGENT_A + i);
            if (pid != c->monitored[i])
                before[i] = 0; /* another process: its first sample compares with nothing */
            c->monitored[i] = pid;
            uint64_t now = pid ? vcpu_time(pid) : 0;
            ran += before[i] > 0 && now > before[i] + 2 * TW_MS;
            before[i] = now;
        }
        /* On a busy machine a sample may be long enough to hold the end of one copy and the
         * beginning of the other; two in a row cannot. */
        if (ran == 2 && getenv("TOWLINE_TEST_KEEP"))
            fprintf(stderr, "both %d %d ran up to %llu ms\n", c->monitored[0], c->monitored[1],
                    (unsigned long long)(tw_now(&tw_monotonic) / TW_MS));
        c->two_running += ran == 2 && both;
        both = ran == 2;
        tw_sleep_ms(10);
    }
    return NULL;
}

void tw_cluster_start(struct tw_cluster *c)
{
    for (unsigned role = 0; role < TW_ROLES; role++)
        tw_cluster_spawn(c, (enum tw_role)role);
    if (c->third)
        tw_cluster_spawn(c, TW_AGENT_C);
    tw_cluster_await_agents(c);
    cr_assert_eq(pthread_create(&c->monitor, NULL, monitor, c), 0);
}

static void remove_tree(const char *dir)
{
    char command[160];
    snprintf(command, sizeof command, "rm -rf -- '%s'", dir);
    if (system(command) != 0)
        fprintf(stderr, "cannot remove %s\n", dir);
}

void tw_cluster_close(struct tw_cluster *c)
{
    if (c->monitor) {
        atomic_store(&c->monitor_stop, true);
        pthread_join(c->monitor, NULL);
    }
    for (unsigned role = 0; role < TW_PROCESSES; role++)
        tw_cluster_kill(c, (enum tw_role)role);
    for (unsigned i = 0; i < 2; i++) {
        pid_t pid = tw_cluster_guest_pid(c, TW_AGENT_A + i);
        if (pid > 0)
            kill(pid, SIGKILL);
    }
    tw_rpc_client_close(c->client);
    tw_tls_close(c->tls);
    if (!getenv("TOWLINE_TEST_KEEP"))
        remove_tree(c->dir);
}
