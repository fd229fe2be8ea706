#!/usr/bin/env bash
# Runs a verb of partition on the machines of a Slurm allocation, by one task of srun on each machine:
#
#   salloc --nodes=2 --gpus-per-node=4 scripts/launch_slurm.sh 4 train CONFIG [key.path=value ...]
#   sbatch --nodes=2 --gpus-per-node=4 --wrap "scripts/launch_slurm.sh 4 train CONFIG"
#
# The first argument is the number of processes on each machine, one for each device. SRUN_OPTIONS are handed to srun
# (SRUN_OPTIONS="--cpu-bind=none --export=ALL"). The machines meet at the first of them, on a port made of the number of
# the job, so that the jobs of one machine do not meet; PORT chooses another. On the network: see launch_machines.sh.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=launching.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/launching.sh"

if (($# < 3)) || ! is_count "$1"; then
    usage
fi
[[ -n ${SLURM_JOB_ID-} && -n ${SLURM_JOB_NODELIST-} ]] ||
    die "SLURM_JOB_ID is not set: start it within salloc or sbatch"

mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
((${#hosts[@]} > 0)) || die "scontrol names no machine for SLURM_JOB_NODELIST=$SLURM_JOB_NODELIST"
port=${PORT:-$((20000 + SLURM_JOB_ID % 30000))}
read -r -a srun_options <<<"${SRUN_OPTIONS-}"

export RUN_ID=$SLURM_JOB_ID
# One machine that fails ends the step on all of them; each has ended its own ranks by then, or srun does.
exec srun --nodes="${#hosts[@]}" --ntasks="${#hosts[@]}" --ntasks-per-node=1 --kill-on-bad-exit=1 \
    "${srun_options[@]}" "$root/scripts/launch_machines.sh" "${hosts[0]}:$port" "${#hosts[@]}" "$@"
