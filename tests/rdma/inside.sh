# Shared by what runs inside the machine (tests/rdma/wire); source it after `set -euo pipefail`.
# shellcheck shell=bash

fail() { # TEXT [LOG...]
    echo "FAIL: $1"
    shift
    (($# == 0)) || tail -n 20 "$@"
    exit 1
}

cut_wire() {
    ip link set wire-b down
}

# A link that goes down forgets its neighbours and routes.
mend_wire() {
    ip link set wire-b up
    join_ends
}

lose() { # SHARE, such as 2%: of the packets in either direction
    local end
    for end in a b; do
        tc qdisc replace dev "wire-$end" root netem loss "$1"
    done
}

lose_nothing() {
    local end
    for end in a b; do
        tc qdisc del dev "wire-$end" root
    done
}

# The two ends know each other's address once and for all, and how to get there: the first packets
# of a run wait for nothing.
join_ends() {
    ip neigh replace "$TOWLINE_RDMA_B" dev wire-a nud permanent \
        lladdr "$(cat /sys/class/net/wire-b/address)"
    ip neigh replace "$TOWLINE_RDMA_A" dev wire-b nud permanent \
        lladdr "$(cat /sys/class/net/wire-a/address)"
    ip route replace "$TOWLINE_RDMA_B" dev wire-a src "$TOWLINE_RDMA_A" table 101
    ip route replace "$TOWLINE_RDMA_A" dev wire-b src "$TOWLINE_RDMA_B" table 102
}

# Those of the two that are missing.
add_devices() {
    add_device 0 a && add_device 1 b
}

add_device() { # NUMBER END
    [[ -e /sys/class/infiniband/$TOWLINE_RDMA_KIND$1 ]] ||
        rdma link add "$TOWLINE_RDMA_KIND$1" type "$TOWLINE_RDMA_KIND" netdev "wire-$2"
}

# The kernel lets go of a device only when the last work on it has ended, which may be a moment after
# the process that asked for it.
renew_devices() {
    local end try
    for end in 0 1; do
        for ((try = 0; try < 20; try++)); do
            [[ -e /sys/class/infiniband/$TOWLINE_RDMA_KIND$end ]] || break
            rdma link delete "$TOWLINE_RDMA_KIND$end" || sleep 0.5
        done
    done
    for ((try = 0; try < 20; try++)); do
        ! add_devices || return 0
        sleep 0.5
    done
    return 1
}

# Waits until a process listens on a port by the devices' connection manager.
await_listener() { # PORT PID
    local try
    for ((try = 0; try < 200; try++)); do
        rdma resource show cm_id | grep -q "state LISTEN .*src-addr .*:$1\b" && return 0
        kill -0 "$2" 2>/dev/null || break
        sleep 0.1
    done
    echo "nobody listens on port $1"
    return 1
}
