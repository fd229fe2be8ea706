#!/usr/bin/env bash
# Lint, types and tests, on a machine with Python 3.11 or later and nothing else:
#
#   scripts/test.sh [pytest arguments, paths from the repository root]
#   PYTHON=/path/to/python scripts/test.sh              in an environment of your own; its torch stays what it is
#
# The first run makes .venv and installs into it; later runs start at once.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=environment.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"

prepare_environment test

# Idle threads sleep instead of spinning: on a machine that does anything else besides, spinning costs most of the time.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
cd -- "$root"
"$python" -m ruff check
"$python" -m ruff format --check
"$python" -m mypy
# Tests of several processes wait most of the time: a worker for each core, more than a few gain nothing.
exec "$python" -m pytest --numprocesses auto --maxprocesses 8 "$@"
