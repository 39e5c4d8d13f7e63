#include "tests/cluster/virtual/run.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define AT_ONCE     64u  /* scenarios of one child */
#define SECONDS_MAX 120u /* of the machine's time, for one scenario: it hangs */
#define SHRINKS_MAX 80u

/* Between a child and its parent. */
struct shared {
    uint64_t at;   /* the scenario that is being played */
    uint64_t done; /* how many have ended */
    struct vt_result results[AT_ONCE];
};

static struct shared *shared_new(void)
{
    struct shared *s =
        mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (s == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return s;
}

static void play(const struct vt_scenario *scenario, bool trace, struct vt_result *r)
{
    alarm(SECONDS_MAX);
    r->good = vt_play(scenario, trace);
    r->problem_ns = vt_world.problem_ns;
    r->struck = true;
    for (unsigned i = 0; i < scenario->fault_count; i++)
        r->struck = r->struck && (vt_world.struck[i] || !(scenario->keep >> i & 1));
    memcpy(r->problem, vt_world.problem, sizeof r->problem);
    memcpy(r->reached, vt_world.reached, sizeof r->reached);
    r->reconnects = vt_world.reconnects;
    r->paced = vt_world.paced != 0;
    r->mirrored = vt_world.mirrored != 0;
    r->served = vt_world.served != 0;
    r->saved = vt_world.saved != 0;
}

/* How a child ended that did not come to the end of its list. */
static void ended(struct vt_result *r, pid_t pid, int status)
{
    *r = (struct vt_result){0};
    vt_folder_remove(pid);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        snprintf(r->problem, sizeof r->problem, "no end after %u s", SECONDS_MAX);
    else if (WIFSIGNALED(status))
        snprintf(r->problem, sizeof r->problem, "the program was ended by %s",
                 strsignal(WTERMSIG(status)));
    else
        snprintf(r->problem, sizeof r->problem, "the program ended with status %d",
                 WEXITSTATUS(status));
}

struct vt_result vt_run_one(const struct vt_scenario *scenario, bool trace)
{
    struct shared *s = shared_new();
    int status = 0;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        play(scenario, trace, &s->results[0]);
        fflush(NULL);
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        perror("fork");
        exit(1);
    }
    if (status)
        ended(&s->results[0], pid, status);
    struct vt_result r = s->results[0];
    munmap(s, sizeof *s);
    return r;
}

/* One child; returns how many scenarios have ended, the last of them perhaps with it. */
static uint64_t batch(uint64_t first, uint64_t count, vt_make make, const void *ctx,
                      struct shared *s)
{
    int status = 0;
    memset(s, 0, sizeof *s);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        for (uint64_t i = 0; i < count; i++) {
            struct vt_scenario scenario;
            make(&scenario, first + i, ctx);
            play(&scenario, false, &s->results[i]);
            s->done = i + 1;
            if (!s->results[i].good)
                break; /* whoever wanted one is content */
        }
        exit(0); /* a sanitizer looks for leaks */
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        perror("fork");
        exit(1);
    }
    if (status == 0)
        return s->done;
    uint64_t bad = s->done < count ? s->done : count - 1;
    ended(&s->results[bad], pid, status);
    return bad + 1;
}

unsigned vt_run_all(uint64_t first, uint64_t last, vt_make make, const void *ctx, bool all,
                    bool (*said)(const struct vt_scenario *s, const struct vt_result *r, void *to),
                    void *to)
{
    struct shared *s = shared_new();
    unsigned bad = 0;
    bool go_on = true;
    while (go_on && first <= last) {
        uint64_t count = last - first + 1 < AT_ONCE ? last - first + 1 : AT_ONCE;
        uint64_t done = batch(first, count, make, ctx, s);
        for (uint64_t i = 0; i < done && go_on; i++) {
            struct vt_scenario scenario;
            if (!s->results[i].good)
                bad++;
            else if (!all)
                continue;
            make(&scenario, first + i, ctx);
            go_on = said(&scenario, &s->results[i], to);
        }
        first += done;
    }
    munmap(s, sizeof *s);
    return bad;
}

/* ---- Shorter --------------------------------------------------------------------------------- */

static bool still_bad(const struct vt_scenario *candidate, struct vt_scenario *best,
                      struct vt_result *result, unsigned *left)
{
    if (*left == 0)
        return false;
    --*left;
    struct vt_result r = vt_run_one(candidate, false);
    if (r.good)
        return false;
    *best = *candidate;
    *result = r;
    return true;
}

static void drop_faults(struct vt_scenario *best, struct vt_result *result, unsigned *left)
{
    for (unsigned i = best->fault_count; i-- > 0;) {
        struct vt_scenario c = *best;
        c.keep &= ~(UINT64_C(1) << i);
        if (best->keep >> i & 1)
            still_bad(&c, best, result, left);
    }
}

void vt_shrink(struct vt_scenario *best, struct vt_result *result)
{
    unsigned left = SHRINKS_MAX;
    best->keep &= (UINT64_C(1) << best->fault_count) - 1;
    drop_faults(best, result, &left);
    while (best->moves > 1) {
        struct vt_scenario c = *best;
        c.moves--;
        if (!still_bad(&c, best, result, &left))
            break;
    }
    if (best->vms > 1) {
        struct vt_scenario c = *best;
        c.vms = 1;
        still_bad(&c, best, result, &left);
    }
    drop_faults(best, result, &left); /* less may be needed now */
}

/* ---- Told ------------------------------------------------------------------------------------ */

static void print_keep(const struct vt_scenario *s, FILE *out)
{
    bool any = false;
    for (unsigned i = 0; i < s->fault_count; i++) {
        if (!(s->keep >> i & 1))
            continue;
        fprintf(out, "%s%u", any ? "," : "", i);
        any = true;
    }
    if (!any)
        fputs("none", out);
}

void vt_report(const struct vt_scenario *s, const struct vt_result *r, FILE *out)
{
    fprintf(out, "seed %llu: after %.3f ms: %s\n", (unsigned long long)s->seed,
            (double)r->problem_ns / 1e6, r->problem);
    for (unsigned i = 0; i < s->fault_count; i++) {
        if (!(s->keep >> i & 1))
            continue;
        fprintf(out, "  fault %u, ", i);
        vt_fault_print(&s->faults[i], out);
    }
    fprintf(out, "  again: simulate --seed %llu%s%s --vms %u --moves %u --keep ",
            (unsigned long long)s->seed, s->method_name ? " --method " : "",
            s->method_name ? s->method_name : "", s->vms, s->moves);
    print_keep(s, out);
    fprintf(out, "%s%s --trace\n", s->mutation ? " --break " : "", s->mutation ? s->mutation : "");
}
