# shellcheck shell=bash
# Sourced by launch_*.sh: usage from the head of the script, the interpreter in $python, the package on its path.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 2
}

# The comment at the head of the script that was started is its usage.
usage() {
    sed -n -e '2,/^[^#]/{ s/^# \{0,1\}//p; }' -- "$0" >&2
    exit 2
}

is_count() {
    [[ $1 =~ ^[1-9][0-9]{0,4}$ ]]
}

# shellcheck disable=SC2034 # python is for the script that sources this
find_python() {
    python=$(command -v -- "${PYTHON:-$root/.venv/bin/python}") ||
        die "${PYTHON:-$root/.venv/bin/python} is not a program; run scripts/run.sh once to make .venv, or set PYTHON"
    # -P for all interpreters below: a random.py in the folder one happens to be in is not ours to import.
    export PYTHONSAFEPATH=1 PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
}
