# shellcheck shell=bash
# Sourced by run.sh and test.sh: finds or makes an environment and leaves its interpreter in $python.
#
#   prepare_environment EXTRA      EXTRA is `data` or `test` (which includes data), as in setup.cfg
#
# Without PYTHON the environment is .venv in the repository, made here with the exact versions of constraints.txt.
# With PYTHON=/path/to/python, or where .venv was made by other hands, the environment belongs to somebody: what is
# missing from it is added; what is there keeps its version unless something new needs another, and torch in any case.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
installing=$venv/.partition-installing # there while an install is under way, so that an interrupted one can be told

say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

die() {
    say "$@"
    exit 1
}

prepare_environment() { # EXTRA
    if [[ -n ${PYTHON-} ]]; then
        python=$(command -v -- "$PYTHON") || die "PYTHON=$PYTHON is not a program that can be run"
        [[ $python == /* ]] || python=$PWD/$python
    else
        python=$venv/bin/python
        ! is_current "$1" || return 0
    fi
    # Left behind where something fails, for the log of pip in it.
    scratch=$(mktemp -d "${TMPDIR:-/tmp}/partition.XXXXXX") || die "cannot write to ${TMPDIR:-/tmp}"
    if [[ -n ${PYTHON-} ]]; then
        reuse_environment "$1" "PYTHON=$PYTHON"
    else
        prepare_venv "$1"
    fi
    rm -rf -- "$scratch"
}

prepare_venv() { # EXTRA
    lock_repository
    if is_ours || [[ -z $(ls -A -- "$venv" 2>/dev/null) ]]; then
        is_current "$1" || install_venv "$1"
    else
        reuse_environment "$1" "$venv (remove it to have one made)"
    fi
    exec 9<&-
}

# ---- an environment of our own

# True where the environment was installed, completely, from the files as they are now.
is_current() { # EXTRA
    local extra now
    [[ -x $venv/bin/python && ! -e $installing ]] || return 1
    now=$(fingerprint)
    for extra in "$1" test; do
        [[ -f $venv/.partition-$extra && $(<"$venv/.partition-$extra") == "$now" ]] && return
    done
    return 1
}

is_ours() {
    [[ -e $installing ]] || is_stamped
}

is_stamped() {
    [[ -e $venv/.partition-data || -e $venv/.partition-test ]]
}

# The path is part of it because an editable install points at it.
fingerprint() {
    {
        printf '%s ' "$root"
        version_of "$venv/bin/python"
        cat -- "$root/setup.cfg" "$root/pyproject.toml" "$root/constraints.txt"
    } | sha256sum
}

install_venv() { # EXTRA
    # A signal ends the script only once pip has ended, and then leaves the mark of an interrupted install.
    trap 'exit 130' INT
    trap 'exit 143' TERM
    if [[ -e $installing ]] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        make_venv
    fi
    : >"$installing"
    say "installing into .venv, about a minute the first time"
    if ! pip_install "$venv/bin/python" --constraint "$root/constraints.txt" --editable "${root}[$1]"; then
        # Where pip gives up by itself it puts back what it had begun to replace: a complete environment stays complete.
        ! is_stamped || rm -f -- "$installing"
        exit 1
    fi
    # Shows that it works, and compiles what is imported, which would otherwise happen at every start where
    # PYTHONDONTWRITEBYTECODE is set.
    env -u PYTHONDONTWRITEBYTECODE "$venv/bin/python" -P -c 'import numpy, pydantic, rich.progress, safetensors.torch, torch, yaml' ||
        die "what pip installed into .venv does not work; run again to make it anew"
    rm -f -- "$venv"/.partition-data "$venv"/.partition-test
    fingerprint >"$venv/.partition-$1"
    rm -f -- "$installing"
    trap - INT TERM
}

make_venv() {
    local base
    base=$(find_base_python)
    mkdir -p -- "$venv" || die "cannot write to $root"
    : >"$installing"
    find "$venv" -mindepth 1 -not -path "$installing" -delete
    say "making .venv with $base ($(version_of "$base"))"
    if "$base" -c 'import ensurepip, venv' 2>/dev/null; then
        "$base" -m venv "$venv" || die "$base -m venv failed; PYTHON=/path/to/python uses an environment of your own"
    else
        make_venv_without_ensurepip "$base"
    fi
}

# Some systems ship Python without ensurepip; the pip beside it can put another into the environment.
make_venv_without_ensurepip() { # INTERPRETER
    local remedy="install it (Debian and Ubuntu: apt install python3-venv) or set PYTHON=/path/to/python"
    "$1" -m pip --version >/dev/null 2>&1 || die "$1 has neither ensurepip nor pip to make .venv with; $remedy"
    "$1" -m venv --without-pip "$venv" 2>/dev/null || die "$1 has no venv to make .venv with; $remedy"
    "$1" -m pip -qq --python "$venv/bin/python" install pip || die "$1 -m pip could not put pip into .venv; $remedy"
}

find_base_python() {
    local name
    for name in python3 python3.11 python3.12 python3.13 python3.14 python; do
        if command -v "$name" >/dev/null && is_recent "$name"; then
            command -v "$name"
            return
        fi
    done
    die "python3: $(version_of python3), 3.11 or later is needed; install it or set PYTHON=/path/to/python"
}

# ---- an environment of somebody's

reuse_environment() { # EXTRA NAME; in $python
    local lacking pins=$scratch/pins.txt
    is_recent "$python" || die "$2: $(version_of "$python"), 3.11 or later is needed"
    lacking=$("$python" "$root/scripts/lacking.py" "$1" "$pins") || die "$2: ${lacking:-see above}"
    [[ -n $lacking ]] || return 0
    "$python" -m pip --version >/dev/null 2>&1 || die "$2: no pip to add what it lacks: ${lacking//$'\n'/, }"
    say "adding to $2: ${lacking//$'\n'/, }"
    add_lacking "$pins" "$lacking"
}

add_lacking() { # PINS LINES
    local line others=()
    while IFS= read -r line; do
        [[ $line == partition-pipeline ]] || others+=("$line")
    done <<<"$2"
    ((${#others[@]} == 0)) || add_others "$1" "${others[@]}" || exit 1
    [[ $2 != *partition-pipeline* ]] || pip_install "$python" --no-deps --editable "$root" || exit 1
}

# Where nothing new goes with all that is there as it is, pip may move anything but torch.
add_others() { # PINS REQUIREMENT...
    local pins=$1
    shift
    pip_install "$python" --constraint "$pins" "$@" && return
    [[ $reason == *"conflicting dependencies"* ]] || return 1
    say "trying again with the version of torch alone held fast"
    grep '^torch==' "$pins" >"$pins.torch"
    pip_install "$python" --constraint "$pins.torch" "$@"
}

# ---- shared

# Two first runs at once would install over each other; the lock ends with the process that holds it.
lock_repository() {
    command -v flock >/dev/null || return 0
    exec 9<"$root"
    flock --nonblock 9 && return
    say "waiting for an install that is under way"
    flock 9
}

# A person sees a long download move; a file gets one line, and only where something went wrong. Compiling every module
# takes longer than installing it, and most are never imported.
pip_install() { # INTERPRETER ARGUMENT...; where it fails, says why, leaves that in $reason and is false
    local interpreter=$1 log=$scratch/pip.log status=0
    shift
    : >"$log"
    local command=("$interpreter" -m pip --disable-pip-version-check --log "$log" install --no-compile "$@")
    if [[ -t 2 ]]; then
        "${command[@]}" >&2 || status=$?
    else
        "${command[@]}" >/dev/null 2>&1 || status=$?
    fi
    ((status != 0)) || return 0
    # What pip gives first is the cause; before it stands the time, and after it come the consequences.
    reason=$(sed -n -e '/present-rich/d' -e 's/^.*ERROR: //p' "$log" | head -n 1)
    say "pip could not install: ${reason:-it ended without a message} (is there a network? the log is $log)"
    return 1
}

is_recent() { # INTERPRETER
    [[ $("$1" -c 'import sys; print(sys.version_info >= (3, 11))' 2>/dev/null) == True ]]
}

version_of() { # INTERPRETER
    local version
    version=$("$1" -c 'import platform; print("Python", platform.python_version())' 2>/dev/null) || version=
    printf '%s\n' "${version:-no working Python}"
}
