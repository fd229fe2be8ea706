#!/usr/bin/env bash
# Two hosts on one machine: two network namespaces joined by a cable of chosen bandwidth, on each the launcher for
# several machines with one device. What is trained there goes over a real network stack.
#
#   scripts/two_hosts.sh [--rate 100mbit] CONFIG [key.path=value ...] [--strategy NAME] ...
#
# CONFIG has to lead to a plan of two devices. Needs root and `ip` (Debian and Ubuntu: apt install iproute2); where
# namespaces are not permitted it says so and ends with 0. PYTHON=... and VERB=profile as in the
# other launchers.
set -euo pipefail

rate=
if [[ ${1-} == --rate ]]; then
    rate=${2:?--rate needs a value such as 100mbit}
    shift 2
fi
if (($# < 1)); then
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
first=partition-$$-a
second=partition-$$-b

skip() {
    printf '%s: skipped: %s\n' "${0##*/}" "$*" >&2
    exit 0
}

# shellcheck disable=SC2317 # called by trap
clean_up() {
    # Processes first: a namespace lives as long as one of its own does.
    for host in "$first" "$second"; do
        for process in $(ip netns pids "$host" 2>/dev/null); do
            kill -KILL "$process" 2>/dev/null || true
        done
        ip netns delete "$host" 2>/dev/null || true
    done
}

command -v ip >/dev/null || skip "there is no \`ip\`; install iproute2"
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
ip netns add "$first" 2>/dev/null || skip "network namespaces are not permitted here (root is needed)"
ip netns add "$second"
ip link add pa$$ type veth peer name pb$$ 2>/dev/null || skip "virtual cables (veth) are not permitted here"
ip link set pa$$ netns "$first"
ip link set pb$$ netns "$second"
ip -n "$first" address add 10.77.0.1/24 dev pa$$
ip -n "$second" address add 10.77.0.2/24 dev pb$$
for pair in "$first pa$$" "$second pb$$"; do
    read -r host device <<<"$pair"
    ip -n "$host" link set lo up
    # Large packets, as between machines that train: the processor, which also computes, has fewer to shape.
    ip -n "$host" link set "$device" mtu 9000 up
    if [[ -n $rate ]]; then
        # A burst of one packet, so that short messages feel the rate too; a queue that never drops.
        tc -n "$host" qdisc add dev "$device" root tbf rate "$rate" burst 80kbit limit 100mb ||
            skip "the bandwidth cannot be shaped here (tc, token bucket filter)"
    fi
done

launch() { # HOST DEVICE ADDRESS ARGUMENT...
    local host=$1 device=$2 address=$3
    shift 3
    ip netns exec "$host" env GLOO_SOCKET_IFNAME="$device" LOCAL_ADDR="$address" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" \
        "$here/launch_machines.sh" 2 1 10.77.0.1:29400 "$@"
}

launch "$first" pa$$ 10.77.0.1 "$@" &
one=$!
launch "$second" pb$$ 10.77.0.2 "$@" &
two=$!
status=0
wait "$one" || status=$?
wait "$two" || status=$?
exit "$status"
