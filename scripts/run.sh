#!/usr/bin/env bash
# Plans an experiment, trains it and prints the report, on a machine with Python 3.11 or later and nothing else:
#
#   scripts/run.sh [CONFIG] [key.path=value ...]        CONFIG is configs/mnist.yaml unless given
#   PYTHON=/path/to/python scripts/run.sh               in an environment of your own; its torch stays what it is
#
# The first run makes .venv and installs into it; later runs start at once.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

config=$root/configs/mnist.yaml
if (($# > 0)) && [[ -f $1 || ($1 != -* && $1 != *=*) ]]; then
    config=$1
    shift
fi
prepare_environment data

# Idle threads sleep instead of spinning: on a machine that does anything else besides, spinning costs most of the time.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}

# -P: a random.py or partition/ in the folder one happens to be in is not ours to import.
"$python" -P -m partition plan "$config" "$@"
exec "$python" -P -m partition train "$config" "$@"
