#!/usr/bin/env bash
#SBATCH --job-name=partition
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#
# Trains a plan on the nodes that Slurm gives, one launcher a node and a process for each device:
#
#   sbatch --nodes 2 --gpus-per-node 8 scripts/launch_slurm.sh CONFIG [key.path=value ...] [--strategy NAME] ...
#
# DEVICES_PER_NODE=... says how many where the job does not (SLURM_GPUS_ON_NODE), as on CPUs. Slurm's SIGTERM before the
# end of the job's time saves a checkpoint; add `--resume latest` and submit again to go on.
set -euo pipefail

if (($# < 1)) || [[ -z ${SLURM_JOB_NODELIST-} ]]; then
    sed -n '6,12s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
devices=${DEVICES_PER_NODE:-${SLURM_GPUS_ON_NODE:?set DEVICES_PER_NODE, or ask for --gpus-per-node}}
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
first=${hosts%%$'\n'*}
# Of the ports that programs may take, one by the job's number: two jobs on a node do not meet.
port=$((20000 + SLURM_JOB_ID % 20000))
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)

export RUN_ID=$SLURM_JOB_ID
exec srun --kill-on-bad-exit=1 \
    "$here/launch_machines.sh" "$SLURM_JOB_NUM_NODES" "$devices" "$first:$port" "$@"
