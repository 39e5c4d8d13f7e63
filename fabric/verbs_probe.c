#include "fabric/verbs_probe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#define GIDS_MAX       256
#define SIW_VENDOR     0x626d74u /* how Soft-iWARP calls itself */
#define MR_SIZE_NEEDED (UINT64_C(1) << 20)
#define MR_NEEDED      16u /* rings, buffers and a few slices */
#define QP_NEEDED      4u  /* one urgent, one bulk, and those of a connection that goes */

const char *tw_verbs_transport_name(enum tw_verbs_transport transport)
{
    static const char *const names[] = {"InfiniBand", "RoCE", "iWARP", "other"};
    return names[transport];
}

static enum tw_verbs_transport transport_of(const struct ibv_device *device, uint8_t link_layer)
{
    if (device->transport_type == IBV_TRANSPORT_IWARP)
        return TW_VERBS_IWARP;
    if (device->transport_type != IBV_TRANSPORT_IB)
        return TW_VERBS_OTHER;
    return link_layer == IBV_LINK_LAYER_ETHERNET ? TW_VERBS_ROCE : TW_VERBS_IB;
}

static const char *state_name(enum ibv_port_state state)
{
    switch (state) {
    case IBV_PORT_ACTIVE:
        return "active";
    case IBV_PORT_DOWN:
        return "down";
    case IBV_PORT_INIT:
        return "init";
    case IBV_PORT_ARMED:
        return "armed";
    default:
        return "unknown";
    }
}

/* RoCE v2 with an IPv4 address first (what the connection manager takes for one), then the rest. */
static unsigned worth(const struct ibv_gid_entry *e)
{
    const bool v4 = IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)e->gid.raw);
    return (e->gid_type == IBV_GID_TYPE_ROCE_V2 ? 2u : 0u) + (v4 ? 1u : 0u);
}

static void fill_gid(struct ibv_context *context, struct tw_verbs_port *p)
{
    struct ibv_gid_entry entries[GIDS_MAX];
    const struct ibv_gid_entry *best = NULL;
    const ssize_t n = ibv_query_gid_table(context, entries, GIDS_MAX, 0);
    for (ssize_t i = 0; i < n; i++)
        if (entries[i].port_num == p->port && (!best || worth(&entries[i]) > worth(best)))
            best = &entries[i];
    if (!best)
        return;
    inet_ntop(AF_INET6, best->gid.raw, p->gid, sizeof p->gid);
    p->gid_index = best->gid_index;
    char name[IF_NAMESIZE];
    if (best->ndev_ifindex && if_indextoname(best->ndev_ifindex, name))
        snprintf(p->netdev, sizeof p->netdev, "%s", name);
}

static void judge(struct tw_verbs_port *p, const struct tw_memlock *memlock)
{
    struct tw_error err;
    if (p->transport == TW_VERBS_OTHER)
        snprintf(p->why, sizeof p->why, "neither InfiniBand, RoCE nor iWARP");
    else if (strcmp(p->state, "active") != 0)
        snprintf(p->why, sizeof p->why, "the port is %s, not active", p->state);
    else if (!p->gid[0])
        snprintf(p->why, sizeof p->why, "the port has no address (GID)");
    else if (p->max_mr < MR_NEEDED || p->max_mr_size < MR_SIZE_NEEDED || p->max_qp < QP_NEEDED)
        snprintf(p->why, sizeof p->why,
                 "limits too small: %u registrations of %llu bytes, %u queue pairs", p->max_mr,
                 (unsigned long long)p->max_mr_size, p->max_qp);
    else if (tw_memlock_check(memlock, p->strict_memlock, TW_VERBS_CONN_PINNED, NULL, &err))
        snprintf(p->why, sizeof p->why, "%.110s (%.40s)", err.what, err.given);
    else
        p->usable = true;
}

static void probe_port(struct ibv_context *context, const struct ibv_device_attr *attr,
                       uint8_t number, struct tw_verbs_probe *out)
{
    struct ibv_port_attr port;
    if (out->port_count == TW_VERBS_PORTS_MAX) {
        out->ports_left_out++;
        return;
    }
    struct tw_verbs_port *p = &out->ports[out->port_count++];
    snprintf(p->device, sizeof p->device, "%s", ibv_get_device_name(context->device));
    p->port = number;
    p->max_mr = attr->max_mr > 0 ? (uint32_t)attr->max_mr : 0;
    p->max_mr_size = attr->max_mr_size;
    p->max_qp = attr->max_qp > 0 ? (uint32_t)attr->max_qp : 0;
    p->max_read_depth = attr->max_qp_init_rd_atom > 0 ? (uint32_t)attr->max_qp_init_rd_atom : 0;
    p->state = "unknown";
    p->strict_memlock = attr->vendor_id == SIW_VENDOR;
    const int number_of_error = ibv_query_port(context, number, &port);
    if (number_of_error) {
        p->transport = TW_VERBS_OTHER;
        snprintf(p->why, sizeof p->why, "the port cannot be asked: %s", strerror(number_of_error));
        return;
    }
    p->transport = transport_of(context->device, port.link_layer);
    p->state = state_name(port.state);
    p->mtu_bytes = port.active_mtu >= IBV_MTU_256 && port.active_mtu <= IBV_MTU_4096
                       ? 128u << port.active_mtu
                       : 0;
    fill_gid(context, p);
    judge(p, &out->memlock);
}

static void probe_device(struct ibv_device *device, struct tw_verbs_probe *out)
{
    struct ibv_device_attr attr;
    struct ibv_context *context = ibv_open_device(device);
    if (!context) {
        if (!out->why[0])
            snprintf(out->why, sizeof out->why, "%s cannot be opened: %s",
                     ibv_get_device_name(device), strerror(errno));
        return;
    }
    if (ibv_query_device(context, &attr) == 0)
        for (unsigned port = 1; port <= attr.phys_port_cnt; port++)
            probe_port(context, &attr, (uint8_t)port, out);
    ibv_close_device(context);
}

static void conclude(struct tw_verbs_probe *out)
{
    for (uint32_t i = 0; i < out->port_count && !out->usable; i++)
        out->usable = out->ports[i].usable;
    if (out->usable)
        out->why[0] = '\0';
    else if (out->port_count)
        snprintf(out->why, sizeof out->why, "%.20s port %u: %.120s", out->ports[0].device,
                 out->ports[0].port, out->ports[0].why);
    else if (!out->why[0])
        snprintf(out->why, sizeof out->why, "this host has no RDMA device");
}

bool tw_fabric_verbs_probe(struct tw_verbs_probe *out)
{
    int count = 0;
    memset(out, 0, sizeof *out);
    tw_memlock_get(&out->memlock);
    /* NULL with ENOSYS: the kernel has no RDMA at all, which is no error. */
    struct ibv_device **devices = ibv_get_device_list(&count);
    if (!devices && errno != ENOSYS && errno != ENOENT)
        snprintf(out->why, sizeof out->why, "the RDMA devices cannot be listed: %s",
                 strerror(errno));
    for (int i = 0; devices && i < count; i++)
        probe_device(devices[i], out);
    if (devices)
        ibv_free_device_list(devices);
    conclude(out);
    return out->usable;
}
