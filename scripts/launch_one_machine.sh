#!/usr/bin/env bash
# Runs a verb of partition in several processes on this machine, one for each device of the plan.
#
#   scripts/launch_one_machine.sh NPROC train CONFIG [key.path=value ...]
#   PYTHON=/path/to/python scripts/launch_one_machine.sh ...      in an environment of your own
#
# The port is free because the kernel chooses it: several runs may start at once. The exit code is that of the rank that
# failed first, whose error is the only one printed. Each process has its share of the cores unless OMP_NUM_THREADS says
# otherwise.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=launching.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/launching.sh"

if (($# < 3)) || ! is_count "$1"; then
    usage
fi
nproc=$1 verb=$2
shift 2
find_python
exec "$python" -m partition "$verb" "$@" --nproc "$nproc"
