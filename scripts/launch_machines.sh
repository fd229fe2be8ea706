#!/usr/bin/env bash
# Trains a plan on several machines. Run the same line on each of them:
#
#   scripts/launch_machines.sh NUM_MACHINES DEVICES_PER_MACHINE HOST:PORT CONFIG [key.path=value ...] [--strategy NAME] ...
#
# HOST:PORT is the rendezvous: a machine of the run, as the others reach it, and a port that is free there. Ranks
# follow the order in which machines come. --out must be on a file system that all machines share.
#
#   RUN_ID=...               the same on all machines, where two runs share a rendezvous
#   GLOO_SOCKET_IFNAME=...   the network interface of CPU runs (NCCL_SOCKET_IFNAME of GPU runs)
#   LOCAL_ADDR=...           this machine's address, where the others cannot resolve its name
#   VERB=profile            measures what layers and messages cost there (default: train)
#   PYTHON=/path/to/python   the interpreter that partition is installed for
set -euo pipefail

if (($# < 4)) || [[ $3 != *:* ]]; then
    sed -n '2,14s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
num_machines=$1
devices_per_machine=$2
endpoint=$3
shift 3

cores=$(nproc)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > devices_per_machine ? cores / devices_per_machine : 1))}

address=()
if [[ -n ${LOCAL_ADDR-} ]]; then
    is_host=false
    [[ $LOCAL_ADDR != "${endpoint%:*}" ]] || is_host=true
    address=(--local-addr "$LOCAL_ADDR" --rdzv-conf "is_host=$is_host")
fi
exec "${PYTHON:-python3}" -m torch.distributed.run \
    --nnodes "$num_machines" \
    --nproc-per-node "$devices_per_machine" \
    --rdzv-backend c10d \
    --rdzv-endpoint "$endpoint" \
    --rdzv-id "${RUN_ID:-partition}" \
    --max-restarts 0 \
    "${address[@]}" \
    -m partition "${VERB:-train}" "$@"
