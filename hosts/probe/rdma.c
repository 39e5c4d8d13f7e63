/* RDMA devices as the kernel shows them, and whether this process may open what libibverbs and
 * librdmacm open. Needs neither library, so that the operators' command can ask, too. */
#include "hosts/probe/inside.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define DEVICES     "/sys/class/infiniband"
#define VERBS       "/sys/class/infiniband_verbs"
#define DEVICES_MAX 16u
#define PORTS_MAX   8u
#define GIDS_LOOKED 16u
#define NAME_SIZE   64u
#define PATH_SIZE   256u
#define WHY_SIZE    96u
#define ACTIVE      4u /* of enum ib_port_state */

static unsigned list(const struct tw_probe_system *system, const char *folder,
                     char names[][NAME_SIZE], unsigned most)
{
    char path[PATH_SIZE];
    unsigned count = 0;
    snprintf(path, sizeof path, "%s%s", system->root, folder);
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && count < most && (e = readdir(dir));)
        if (e->d_name[0] != '.' && strlen(e->d_name) < NAME_SIZE)
            snprintf(names[count++], NAME_SIZE, "%.63s", e->d_name);
    if (dir)
        closedir(dir);
    return count;
}

unsigned tw_probe_rdma_count(const struct tw_probe_system *system)
{
    char names[DEVICES_MAX][NAME_SIZE];
    return list(system, DEVICES, names, DEVICES_MAX);
}

/* A port without a GID cannot be addressed. */
static bool has_gid(const struct tw_probe_system *system, const char *device, const char *port)
{
    char path[PATH_SIZE], gid[64];
    for (unsigned i = 0; i < GIDS_LOOKED; i++) {
        snprintf(path, sizeof path, DEVICES "/%s/ports/%s/gids/%u", device, port, i);
        if (tw_probe_read(system, path, gid, sizeof gid) && gid[strspn(gid, "0:\n")] != 0)
            return true;
    }
    return false;
}

/* Usable ports of a device; why the last one is not. */
static unsigned usable_ports(const struct tw_probe_system *system, const char *device,
                             char why[static WHY_SIZE])
{
    char path[PATH_SIZE], ports[PORTS_MAX][NAME_SIZE];
    snprintf(path, sizeof path, DEVICES "/%s/ports", device);
    unsigned count = list(system, path, ports, PORTS_MAX), usable = 0;
    snprintf(why, WHY_SIZE, "no port");
    for (unsigned i = 0; i < count; i++) {
        uint64_t state;
        snprintf(path, sizeof path, DEVICES "/%s/ports/%s/state", device, ports[i]);
        if (!tw_probe_number(system, path, "", 10, &state) || state != ACTIVE)
            snprintf(why, WHY_SIZE, "port %.16s is not active", ports[i]);
        else if (!has_gid(system, device, ports[i]))
            snprintf(why, WHY_SIZE, "port %.16s has no GID", ports[i]);
        else
            usable++;
    }
    return usable;
}

/* uverbsN of the device may be opened: 0 or an errno. */
static int device_openable(const struct tw_probe_system *system, const char *device)
{
    char nodes[DEVICES_MAX][NAME_SIZE], path[PATH_SIZE], owner[NAME_SIZE];
    unsigned count = list(system, VERBS, nodes, DEVICES_MAX);
    for (unsigned i = 0; i < count; i++) {
        snprintf(path, sizeof path, VERBS "/%s/ibdev", nodes[i]);
        if (!tw_probe_read(system, path, owner, sizeof owner))
            continue;
        owner[strcspn(owner, "\n")] = 0;
        if (strcmp(owner, device) != 0)
            continue;
        snprintf(path, sizeof path, "/dev/infiniband/%s", nodes[i]);
        return tw_probe_openable(system, path);
    }
    return ENODEV;
}

static void none(const struct tw_probe *probe)
{
    tw_probe_mend(probe,
                  "modprobe the driver of the device; without one: modprobe rdma_rxe; rdma link "
                  "add rxe0 type rxe netdev eth0; or fabric back end tcp");
    if (probe->settings->rdma_required)
        tw_probe_says(probe, TW_PROBE_FAIL, "no RDMA device");
    else
        tw_probe_says(probe, TW_PROBE_SKIPPED, "no RDMA device: lines travel over TCP");
}

void tw_probe_rdma(const struct tw_probe *probe)
{
    char devices[DEVICES_MAX][NAME_SIZE], why[WHY_SIZE], text[128] = "";
    const struct tw_probe_system *system = probe->system;
    unsigned count = list(system, DEVICES, devices, DEVICES_MAX), usable = 0;
    size_t used = 0;
    tw_probe_needs(probe,
                   "a device with an active port and a GID; /dev/infiniband/uverbs* and rdma_cm "
                   "open to the agent");
    if (count == 0) {
        none(probe);
        return;
    }
    tw_probe_mend(probe, "rdma link; ip link set DEV up; for the right to open: chgrp towline "
                         "/dev/infiniband/*; container: --device /dev/infiniband");
    int manager = tw_probe_openable(system, "/dev/infiniband/rdma_cm");
    for (unsigned i = 0; i < count && used < sizeof text; i++) {
        int failed = device_openable(system, devices[i]);
        unsigned ports = usable_ports(system, devices[i], why);
        if (failed)
            snprintf(why, sizeof why, "%s", strerror(failed));
        usable += !failed && ports;
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%.24s: %s", used ? "; " : "",
                                 devices[i], !failed && ports ? "active" : why);
    }
    enum tw_probe_verdict bad = probe->settings->rdma_required ? TW_PROBE_FAIL : TW_PROBE_WARN;
    if (manager)
        tw_probe_says(probe, bad, "%s; rdma_cm: %s", text, strerror(manager));
    else if (usable && probe->settings->verbs_usable &&
             !probe->settings->verbs_usable(why, sizeof why))
        tw_probe_says(probe, bad, "%s; libibverbs: %s", text, why);
    else
        tw_probe_says(probe, usable ? TW_PROBE_OK : bad, "%s", text);
}
