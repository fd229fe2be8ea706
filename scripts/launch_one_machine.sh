#!/usr/bin/env bash
# Trains a plan on one machine, a process for each device:
#
#   scripts/launch_one_machine.sh NUM_DEVICES CONFIG [key.path=value ...] [--strategy NAME] [--resume latest] ...
#
# The same as `partition train CONFIG ... --nproc NUM_DEVICES`, written out with torchrun, to be changed at will.
# PYTHON=/path/to/python chooses the interpreter that partition is installed for, VERB=profile measures instead.
set -euo pipefail

if (($# < 2)); then
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
num_devices=$1
shift

# Processes that all use all cores get in each other's way.
cores=$(nproc)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > num_devices ? cores / num_devices : 1))}

# Port 0 of the endpoint: any free one, so that several runs can go on at once.
exec "${PYTHON:-python3}" -m torch.distributed.run \
    --nproc-per-node "$num_devices" \
    --rdzv-backend c10d \
    --rdzv-endpoint localhost:0 \
    --max-restarts 0 \
    -m partition "${VERB:-train}" "$@"
