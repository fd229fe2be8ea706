#!/usr/bin/env bash
# Two processes that share one GPU and reach each other through NCCL, as two hosts of one GPU each would: what is
# trained over NCCL can so be tried with a single GPU. Each takes half of its time, so seconds mean nothing.
#
#   scripts/nccl_one_gpu.sh CONFIG [key.path=value ...] [--strategy NAME] ...
#
# CONFIG has to lead to a plan of two devices of kind cuda. PYTHON=... and VERB=profile as in the other launchers.
# Without a GPU it says so and ends with 0.
set -euo pipefail
if (($# < 1)); then
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
# shellcheck source-path=SCRIPTDIR source=gpu.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/gpu.sh"
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
launch() { # RANK ARGUMENT...
    # NCCL refuses two ranks on one GPU of one host; of hosts with names of their own it does not ask.
    RANK=$1 WORLD_SIZE=2 LOCAL_RANK=0 LOCAL_WORLD_SIZE=1 MASTER_ADDR=127.0.0.1 MASTER_PORT=$port \
        NCCL_HOSTID=partition-$$-$1 NCCL_SOCKET_IFNAME=lo GLOO_SOCKET_IFNAME=lo NCCL_IB_DISABLE=1 \
        exec "$python" -m partition "${VERB:-train}" "${@:2}"
}
launch 0 "$@" &
one=$!
launch 1 "$@" &
two=$!
status=0
wait "$one" || status=$?
wait "$two" || status=$?
exit "$status"
