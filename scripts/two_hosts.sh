#!/usr/bin/env bash
# Runs a command on two hosts that are two network namespaces of this machine, joined by a cable (veth):
#
#   scripts/two_hosts.sh [--rate 100mbit] -- COMMAND [ARGUMENT ...]
#   scripts/two_hosts.sh -- scripts/launch_machines.sh ENDPOINT 2 1 train CONFIG
#
# Of the arguments, ENDPOINT becomes the address and port at which the hosts meet, on the first of them, and HOST the
# number of the host, 0 or 1. --rate shapes the cable in both directions, by tc's token bucket. The output of both goes
# here; the exit code is that of the first host, or of the second where that one alone failed. Needs root; where
# namespaces are not permitted it says so and ends with 0. Nothing stays behind, however it ends.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=launching.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/launching.sh"

skip() {
    printf '%s: skipped: %s\n' "${0##*/}" "$*" >&2
    exit 0
}

rate=
if [[ ${1-} == --rate ]]; then
    (($# >= 2)) || usage
    rate=$2
    shift 2
fi
if [[ ${1-} != -- ]] || (($# < 2)); then
    usage
fi
shift

# Names of the hosts, of the ends of the cable, and addresses; the number of this process keeps two runs apart.
hosts=("partition$$a" "partition$$b")
ends=("pa$$" "pb$$")
addresses=(10.177.0.1 10.177.0.2)
port=29400
pids=()

# shellcheck disable=SC2317 # called by a trap
clean_up() {
    local status=$? pid name
    trap - EXIT
    trap '' INT TERM
    for pid in "${pids[@]}"; do
        kill -TERM "$pid" 2>/dev/null || true
    done
    for name in "${hosts[@]}"; do
        if [[ -e /run/netns/$name ]]; then
            end_processes "$name"
            ip netns delete "$name" || true
        fi
    done
    wait
    exit "$status"
}

# What is left of a host: asked to end, and ended where it has not within ten seconds.
# shellcheck disable=SC2317 # called by a trap
end_processes() { # HOST
    local left
    for ((tries = 0; tries < 100; tries++)); do
        left=$(ip netns pids "$1" 2>/dev/null) || return 0
        [[ -n $left ]] || return 0
        sleep 0.1
    done
    xargs --no-run-if-empty kill -KILL <<<"$left" || true
}

make_cable() {
    local i
    ip link add "${ends[0]}" type veth peer name "${ends[1]}" || return
    for i in 0 1; do
        # A cable whose end has moved into a namespace goes with it.
        ip link set "${ends[i]}" netns "${hosts[i]}" || return
        ip -n "${hosts[i]}" link set lo up || return
        ip -n "${hosts[i]}" address add "${addresses[i]}/24" dev "${ends[i]}" || return
        ip -n "${hosts[i]}" link set "${ends[i]}" up || return
    done
}

shape_cable() {
    local i
    for i in 0 1; do
        ip netns exec "${hosts[i]}" tc qdisc add dev "${ends[i]}" root tbf rate "$rate" burst 256kb latency 100ms ||
            return
    done
}

run_on() { # INDEX COMMAND...
    local index=$1 argument arguments=()
    shift
    for argument in "$@"; do
        case $argument in
        ENDPOINT) arguments+=("${addresses[0]}:$port") ;;
        HOST) arguments+=("$index") ;;
        *) arguments+=("$argument") ;;
        esac
    done
    GLOO_SOCKET_IFNAME=${ends[index]} NCCL_SOCKET_IFNAME=${ends[index]} \
        exec ip netns exec "${hosts[index]}" "${arguments[@]}"
}

command -v ip >/dev/null || skip "there is no ip (Debian and Ubuntu: apt install iproute2)"
((EUID == 0)) || skip "network namespaces need root"
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
for host in "${hosts[@]}"; do
    reason=$(ip netns add "$host" 2>&1) || skip "network namespaces are not permitted here (${reason##*$'\n'})"
done
reason=$(make_cable 2>&1) || skip "the namespaces cannot be joined here (${reason##*$'\n'})"
if [[ -n $rate ]]; then
    command -v tc >/dev/null || die "--rate needs tc (Debian and Ubuntu: apt install iproute2)"
    reason=$(shape_cable 2>&1) || die "--rate $rate: tc says: ${reason##*$'\n'}"
fi

for i in 0 1; do
    run_on "$i" "$@" &
    pids+=("$!")
done
statuses=(0 0)
for i in 0 1; do
    wait "${pids[i]}" || statuses[i]=$?
done
pids=()
exit "$((statuses[0] ? statuses[0] : statuses[1]))"
