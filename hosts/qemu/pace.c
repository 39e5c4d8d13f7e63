/* Slowing the guest's writers of certain lines, over the link; the plugin does it. */
#include "hosts/qemu/qemu_impl.h"

static_assert(TW_HOST_PACE_HOLDS_NS == TW_LINK_PACE_HOLDS_NS, "the link keeps what the host says");

static void pace_lines(void *host, uint64_t page, uint64_t lines)
{
    struct tw_qemu *q = host;
    tw_link_pace_lines(&q->link, page, lines);
}

/* By the machine's clock, which is the plugin's. */
static void pace_rule(void *host, const struct tw_pace_rule *rule)
{
    struct tw_qemu *q = host;
    tw_link_pace(&q->link, rule, tw_now(&tw_monotonic));
}

static void pace_stats(void *host, struct tw_host_paced *out)
{
    const struct tw_qemu *q = host;
    *out = (struct tw_host_paced){0};
    for (uint32_t i = 0; i < TW_LINK_VCPUS_MAX; i++) {
        const struct tw_link_vcpu *v = &q->link.header->vcpu[i];
        const uint64_t ns = __atomic_load_n(&v->pace_ns, __ATOMIC_RELAXED);
        out->waits += __atomic_load_n(&v->pace_waits, __ATOMIC_RELAXED);
        out->wait_ns = ns > out->wait_ns ? ns : out->wait_ns;
    }
}

const struct tw_host_pace_ops tw_qemu_pace_ops = {
    .lines = pace_lines, .rule = pace_rule, .stats = pace_stats};
