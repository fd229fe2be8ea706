# shellcheck shell=bash
# Sourced by test_cuda.sh and nccl_one_gpu.sh: leaves the interpreter in $python, which PYTHON names; where there is no
# CUDA GPU says so and ends with 0.

python=${PYTHON:-python3}
if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    printf '%s: skipped: there is no CUDA GPU\n' "${0##*/}" >&2
    exit 0
fi
