#include "tests/cluster/virtual/world.h"
#include "tests/cluster/virtual/power.h"

#include "base/log.h"

#include <ftw.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FAULTS_NS  (9 * TW_SEC)   /* things go wrong for so long */
#define SETTLE_NS  (150 * TW_SEC) /* and then it must all come to an end */
#define QUIET_NS   (2 * TW_SEC)   /* the cluster stays as it is */
#define EXPIRES_NS (610 * TW_SEC) /* a plan is too old then */

struct vt_world vt_world;

/* Of the linker. */
void __wrap_tw_log(enum tw_log_level level, const char *where, const char *event, const char *pairs,
                   ...) __attribute__((format(printf, 4, 5)));

/* ---- What is told ---------------------------------------------------------------------------- */

static void stamp(FILE *out)
{
    fprintf(out, "%12.3f ms ", (double)(vt_now() - vt_world.began_ns) / 1e6);
}

void vt_say(const char *format, ...)
{
    va_list args;
    if (!vt_world.trace)
        return;
    stamp(stdout);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

void vt_problem(const char *format, ...)
{
    va_list args;
    if (vt_world.problem[0])
        return;
    va_start(args, format);
    vsnprintf(vt_world.problem, sizeof vt_world.problem, format, args);
    va_end(args);
    vt_world.problem_ns = vt_now() - vt_world.began_ns;
    vt_say("RULE BROKEN: %s", vt_world.problem);
}

void __wrap_tw_log(enum tw_log_level level, const char *where, const char *event, const char *pairs,
                   ...)
{
    va_list args;
    if (!vt_world.trace || level == TW_LOG_DEBUG)
        return;
    stamp(stdout);
    printf("%s%s: %s \"%s\" ", vt_here() ? vt_here()->name : "", vt_dead() ? " (dead)" : "", where,
           event);
    va_start(args, pairs);
    vprintf(pairs, args);
    va_end(args);
    putchar('\n');
}

/* ---- Files ----------------------------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)st, (void)kind, (void)where;
    return remove(path);
}

static void folder_of(pid_t pid, char path[64])
{
    const char *base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(path, 64, "%s/towline-virtual-%d", base, (int)pid);
}

void vt_folder_remove(pid_t pid)
{
    char path[64];
    folder_of(pid, path);
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void folder_make(void)
{
    vt_folder_remove(getpid()); /* of one with this number that was ended */
    folder_of(getpid(), vt_world.dir);
    if (mkdir(vt_world.dir, 0700) != 0) {
        perror(vt_world.dir);
        abort();
    }
}

/* ---- Play ------------------------------------------------------------------------------------ */

static bool broken(void *ctx)
{
    (void)ctx;
    return vt_world.problem[0] != 0;
}

static bool settled(void *ctx)
{
    (void)ctx;
    return broken(NULL) || (vt_operator_settled() && vt_agents_idle());
}

static bool checked;
static void *check(void *arg)
{
    (void)arg;
    vt_operator_check();
    checked = true;
    return NULL;
}

static bool was_checked(void *ctx)
{
    (void)ctx;
    return checked || broken(NULL);
}

/* Everybody has ended, and every call that was on its way. */
static bool all_gone(void *ctx)
{
    (void)ctx;
    return vt_fibers_alive() == 0;
}

static void begin(const struct vt_scenario *scenario, bool trace)
{
    static const char *const names[VT_NODES] = {"node-a", "node-b", "node-c", "controller",
                                                "operator"};
    vt_world = (struct vt_world){.scenario = scenario, .trace = trace};
    vt_open(scenario->seed);
    vt_world.began_ns = vt_now();
    folder_make();
    vt_power_begin();
    vt_guests_begin();
    for (unsigned i = 0; i < VT_NODES; i++)
        snprintf(vt_world.nodes[i].name, sizeof vt_world.nodes[i].name, "%s", names[i]);
    for (unsigned i = 0; i <= VT_CONTROLLER; i++)
        vt_node_start(&vt_world.nodes[i]);
    vt_operator_begin();
    vt_faults_begin();
}

static void finish(void)
{
    vt_world.ending = vt_world.healing = true;
    for (unsigned i = 0; i < VT_NODES; i++) {
        vt_kill_for(&vt_world.nodes[i], 0);
        vt_wake(&vt_world.nodes[i], ~0u);
    }
    if (!vt_run(all_gone, NULL, vt_now() + 100 * TW_SEC))
        vt_problem("%u threads or calls do not end", vt_fibers_alive());
    vt_operator_end();
    vt_power_end();
    vt_guests_end();
    vt_close();
    vt_folder_remove(getpid());
}

bool vt_play(const struct vt_scenario *scenario, bool trace)
{
    begin(scenario, trace);
    vt_run(broken, NULL, vt_world.began_ns + (scenario->wrong_ns ? scenario->wrong_ns : FAULTS_NS));
    vt_heal();
    uint64_t patience = SETTLE_NS;
    if (scenario->plan == VT_PLAN_EXPIRED)
        patience += EXPIRES_NS;
    if (!vt_run(settled, NULL, vt_now() + patience))
        vt_problem("the cluster does not come to rest");
    vt_hosts_on();
    if (!vt_run(settled, NULL, vt_now() + SETTLE_NS))
        vt_problem("the cluster does not come to rest with hosts that are back");
    vt_run(broken, NULL, vt_now() + QUIET_NS);
    checked = broken(NULL);
    if (!checked)
        vt_spawn_free(&vt_world.nodes[VT_OPERATOR], check, NULL);
    vt_run(was_checked, NULL, vt_now() + 30 * TW_SEC);
    if (!was_checked(NULL))
        vt_problem("the controller does not answer in the end");
    for (unsigned i = 0; i < VT_AGENTS; i++)
        vt_agent_check_end(i);
    finish();
    return !broken(NULL);
}
