#include "hosts/process/inject.h"

#include "base/clock.h"
#include "hosts/process/kernel.h"
#include "hosts/process/stay.h"
#include "hosts/process/tracee.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define FD_FLAGS      (O_CLOEXEC | O_NONBLOCK)
#define PATH_PLACE    512u /* bytes below the stack pointer: beyond the red zone of 128 */
#define EXEC_WAIT_MAX (600 * TW_SEC)

static const char device_path[] = "/dev/userfaultfd";

struct tw_inject {
    pthread_t thread;
    enum tw_inject_when when;
    bool (*leave)(pid_t pid); /* at its execve; may be NULL */
    atomic_bool cancel;
    atomic_bool following; /* the program is traced: it can be let go to its execve */
    atomic_bool ended;     /* the fields below are set */
    struct tw_stay stay;
    struct tw_tracee tracee;
    int userfaultfd;
    uint64_t stop_ns;
    enum tw_code code;
    struct tw_error err;
};

/* ---- Inside the program ---------------------------------------------------------------------- */

static enum tw_code call(struct tw_tracee *t, long number, uint64_t a, uint64_t b, uint64_t c,
                         int64_t *result, struct tw_error *err)
{
    const uint64_t args[3] = {a, b, c};
    return tw_tracee_call(t, number, args, result, err);
}

/* Through the device node, which a container can be given without any other right. *fd is -errno
 * when that does not work there. */
static enum tw_code make_by_device(struct tw_tracee *t, int64_t *fd, struct tw_error *err)
{
    const uint64_t place = (t->saved.rsp - PATH_PLACE) & ~UINT64_C(7);
    char below[sizeof device_path];
    int64_t device = -EFAULT, ignored;
    *fd = -EFAULT;
    if (pread(t->mem, below, sizeof below, (off_t)place) != sizeof below ||
        pwrite(t->mem, device_path, sizeof device_path, (off_t)place) != sizeof device_path)
        return TW_OK;
    enum tw_code code =
        call(t, SYS_openat, (uint64_t)AT_FDCWD, place, O_RDWR | O_CLOEXEC, &device, err);
    if (pwrite(t->mem, below, sizeof below, (off_t)place) != sizeof below && !code)
        code = tw_fail_errno(err, errno, t->where, "its stack cannot be put back");
    if (code || device < 0) {
        *fd = device;
        return code;
    }
    code = call(t, SYS_ioctl, (uint64_t)device, (uint64_t)USERFAULTFD_IOC_NEW, FD_FLAGS, fd, err);
    if (!code)
        code = call(t, SYS_close, (uint64_t)device, 0, 0, &ignored, err);
    return code;
}

static enum tw_code make(struct tw_tracee *t, int64_t *fd, struct tw_error *err)
{
    int64_t by_device;
    enum tw_code code = make_by_device(t, &by_device, err);
    *fd = by_device;
    if (code || by_device >= 0)
        return code;
    if (!t->filtered) { /* filters of containers often deny it */
        code = call(t, SYS_userfaultfd, FD_FLAGS, 0, 0, fd, err);
        if (!code && *fd < 0)
            code = call(t, SYS_userfaultfd, FD_FLAGS | UFFD_USER_MODE_ONLY, 0, 0, fd, err);
    }
    if (!code && *fd < 0)
        code = tw_fail(err, TW_PERMISSION_DENIED, t->where,
                       "/dev/userfaultfd that it may open, or vm.unprivileged_userfaultfd",
                       strerror((int)-by_device), "no userfaultfd can be made in it");
    return code;
}

/* The descriptor is of no more use over there once we hold it. */
static enum tw_code fetch(struct tw_tracee *t, int64_t remote, int *local, struct tw_error *err)
{
    enum tw_code code = TW_OK;
    int64_t ignored;
    const int pidfd = (int)syscall(SYS_pidfd_open, t->pid, 0);
    *local = pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, (int)remote, 0);
    if (*local < 0)
        code = tw_fail_errno(err, errno, t->where, "its userfaultfd cannot be fetched");
    if (pidfd >= 0)
        close(pidfd);
    enum tw_code closed = call(t, SYS_close, (uint64_t)remote, 0, 0, &ignored, code ? NULL : err);
    return code ? code : closed;
}

static enum tw_code run(struct tw_inject *inject, struct tw_error *err)
{
    struct tw_tracee *t = &inject->tracee;
    int64_t remote = -1;
    enum tw_code code = tw_tracee_enter(t, err);
    if (code)
        return code;  /* nothing was changed: the end of this thread lets it go */
    t->cancel = NULL; /* from here on it must be put back first */
    code = make(t, &remote, err);
    if (!code)
        code = fetch(t, remote, &inject->userfaultfd, err);
    const bool stays = !code && inject->when == TW_INJECT_AT_EXEC_AND_STAY;
    enum tw_code left = stays ? tw_tracee_keep(t, err) : tw_tracee_leave(t, code ? NULL : err);
    inject->stop_ns = tw_now(&tw_monotonic) - t->stopped_ns;
    return code ? code : left;
}

static void *tracer_main(void *ctx)
{
    struct tw_inject *inject = ctx;
    struct tw_tracee *t = &inject->tracee;
    struct tw_error *err = &inject->err;
    if (inject->when != TW_INJECT_NOW) {
        inject->code = tw_tracee_follow(t, err);
        if (!inject->code) {
            atomic_store(&inject->following, true);
            const uint64_t deadline = tw_after(tw_now(&tw_monotonic), EXEC_WAIT_MAX);
            inject->code = tw_tracee_stop_at_exec(t, deadline, err);
        }
        if (!inject->code && inject->leave && inject->leave(t->pid))
            inject->code = tw_fail(err, TW_CANCELLED, t->where, NULL, NULL, "is to be left alone");
    } else {
        inject->code = tw_tracee_stop(t, err);
    }
    if (!inject->code)
        inject->code = run(inject, err);
    if (t->mem >= 0)
        close(t->mem);
    if (inject->code && inject->userfaultfd >= 0) {
        close(inject->userfaultfd);
        inject->userfaultfd = -1;
    }
    const bool stays = !inject->code && inject->when == TW_INJECT_AT_EXEC_AND_STAY;
    atomic_store(&inject->stay.hold, stays ? TW_HOLD_START : TW_HOLD_NONE);
    atomic_store(&inject->ended, true);
    if (stays)
        tw_stay_run(&inject->stay, t);
    else
        atomic_store(&inject->stay.over, true);
    return NULL;
}

/* ---- From outside ---------------------------------------------------------------------------- */

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

enum tw_code tw_inject_begin(pid_t pid, enum tw_inject_when when, bool (*leave)(pid_t pid),
                             uint64_t stop_timeout_ns, struct tw_inject **inject,
                             struct tw_error *err)
{
    struct tw_inject *i = calloc(1, sizeof *i);
    if (!i)
        return tw_fail(err, TW_RESOURCE_EXHAUSTED, "inject", NULL, NULL, "no memory");
    const bool wait_exec = when != TW_INJECT_NOW;
    i->when = when;
    i->leave = leave;
    i->userfaultfd = -1;
    i->tracee = (struct tw_tracee){
        .pid = pid, .mem = -1, .step_timeout_ns = stop_timeout_ns, .cancel = &i->cancel};
    snprintf(i->tracee.where, sizeof i->tracee.where, "pid %d", (int)pid);
    const int number = pthread_create(&i->thread, NULL, tracer_main, i);
    if (number) {
        free(i);
        return tw_fail_errno(err, number, "inject", "no thread");
    }
    while (wait_exec && !atomic_load(&i->following) && !atomic_load(&i->ended))
        nap(); /* seizing does not wait for anything */
    if (wait_exec && !atomic_load(&i->following)) {
        uint64_t stop_ns;
        int fd;
        return tw_inject_finish(i, TW_NEVER, &fd, &stop_ns, err);
    }
    *inject = i;
    return TW_OK;
}

/* The thread has set its results, if need be because it was called off. */
static enum tw_code await_end(struct tw_inject *inject, uint64_t deadline_ns, int *userfaultfd,
                              uint64_t *stop_ns, struct tw_error *err)
{
    while (!atomic_load(&inject->ended)) {
        if (tw_now(&tw_monotonic) >= deadline_ns)
            atomic_store(&inject->cancel, true);
        nap();
    }
    if (inject->code && err)
        *err = inject->err;
    *userfaultfd = inject->userfaultfd;
    *stop_ns = inject->stop_ns;
    return inject->code;
}

static void end_thread(struct tw_inject *inject)
{
    tw_stay_end(&inject->stay, inject->thread);
    pthread_join(inject->thread, NULL);
    free(inject);
}

enum tw_code tw_inject_finish(struct tw_inject *inject, uint64_t deadline_ns, int *userfaultfd,
                              uint64_t *stop_ns, struct tw_error *err)
{
    const enum tw_code code = await_end(inject, deadline_ns, userfaultfd, stop_ns, err);
    end_thread(inject);
    return code;
}

enum tw_code tw_inject_stay(struct tw_inject *inject, uint64_t deadline_ns, int *userfaultfd,
                            uint64_t *stop_ns, struct tw_error *err)
{
    const enum tw_code code = await_end(inject, deadline_ns, userfaultfd, stop_ns, err);
    if (code)
        end_thread(inject);
    return code;
}

enum tw_hold tw_inject_hold(const struct tw_inject *inject)
{
    return tw_stay_hold(&inject->stay);
}

void tw_inject_go(struct tw_inject *inject)
{
    tw_stay_go(&inject->stay);
}

void tw_inject_end(struct tw_inject *inject)
{
    end_thread(inject);
}

void tw_inject_cancel(struct tw_inject *inject)
{
    int fd;
    uint64_t stop_ns;
    if (inject && tw_inject_finish(inject, 0, &fd, &stop_ns, NULL) == TW_OK)
        close(fd);
}
