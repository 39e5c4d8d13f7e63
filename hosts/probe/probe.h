/* What usually fails first on a host, asked of the running machine and never guessed from a
 * version: limits, rights, kernel features, room, devices, QEMU.
 *
 * A probe is a function over settings (what Towline is to do here) and a system (what the machine
 * answers). All strings of a result are for people, except `name`, which is stable. Reentrant: the
 * probes share nothing. They block for as long as a program that they start (TW_PROBE_RUN_MS). */
#ifndef TOWLINE_HOSTS_PROBE_PROBE_H
#define TOWLINE_HOSTS_PROBE_PROBE_H

#include "base/error.h"
#include "hosts/probe/system.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TW_PROBES_MAX 32u /* results of one run */

/* In the order of badness. SKIPPED: does not apply here. WARN: works, but not as well as it could,
 * or not for long. FAIL: something that Towline offers does not work on this host. */
enum tw_probe_verdict { TW_PROBE_SKIPPED, TW_PROBE_OK, TW_PROBE_WARN, TW_PROBE_FAIL };

struct tw_probe_result {
    char name[32]; /* "memlock" */
    enum tw_probe_verdict verdict;
    char found[192];
    char needed[160];
    char mend[224]; /* a command, or a setting; empty when nothing has to be mended */
};

/* What the host is to do. Paths are absolute; empty or NULL = not known. */
struct tw_probe_settings {
    const char *run_dir;     /* guest RAM; unknown: /dev/shm */
    const char *state_dir;   /* durable records; unknown: skipped */
    const char *qemu;        /* program; unknown: qemu-system-x86_64 */
    const char *plugin;      /* our TCG plugin; unknown: only whether QEMU takes plugins */
    const char *certificate; /* PEM; unknown: skipped */
    /* Reads the end of a certificate, seconds since 1970; NULL: this program cannot. */
    enum tw_code (*certificate_end)(const char *path, int64_t *unix_s, struct tw_error *err);
    const char *revoked; /* PEM: the list of revoked certificates; unknown: not looked at */
    /* Whether a certificate is on a list; NULL: this program cannot. */
    enum tw_code (*certificate_revoked)(const char *list, const char *certificate, bool *revoked,
                                        struct tw_error *err);
    /* Asks libibverbs whether a device can be used, and if not, why; NULL: this program does not
     * use it, and what the kernel shows has to do. */
    bool (*verbs_usable)(char *why, size_t size);
    uint64_t memory_bytes;       /* for all guests; 0 = half of the machine's */
    uint64_t memory_taken_bytes; /* by guests that are here already */
    bool rdma_required;          /* the fabric is to use verbs and nothing else */
};

/* Runs every probe; returns how many results there are. */
size_t tw_probe_all(const struct tw_probe_settings *settings, const struct tw_probe_system *system,
                    struct tw_probe_result results[TW_PROBES_MAX]);
/* Runs the probe of that name; false: there is none. */
bool tw_probe_named(const char *name, const struct tw_probe_settings *settings,
                    const struct tw_probe_system *system, struct tw_probe_result *result);

/* One exchange of a question and its answer, wall clocks in microseconds since 1970. */
struct tw_probe_exchange {
    uint64_t asked_us, returned_us;    /* by the clock of who asked */
    uint64_t received_us, answered_us; /* by the clock of who was asked */
};
/* Compares the clocks. `pair` names them: "node-a against the controller". What the exchange cannot
 * decide, because half of its round trip is longer than the limit, is skipped. */
void tw_probe_clock(const char *name, const char *pair, const struct tw_probe_exchange *exchange,
                    struct tw_probe_result *result);

/* The worst of all; SKIPPED when there are none. */
enum tw_probe_verdict tw_probe_worst(const struct tw_probe_result *results, size_t count);
const char *tw_probe_verdict_name(enum tw_probe_verdict verdict); /* "ok", "warn", ... */

#endif
