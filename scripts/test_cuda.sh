#!/usr/bin/env bash
# The tests of layers, splits, schedules, noise and second derivatives with every tensor on a GPU: simulated devices
# keep theirs on one GPU together. Needs a GPU and an environment with partition's tests:
#
#   scripts/test_cuda.sh [pytest arguments]
#   PYTHON=/path/to/python scripts/test_cuda.sh
#   PARTITION_TEST_DEVICE=cuda:1 scripts/test_cuda.sh        on another than the first
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/gpu.sh
source scripts/gpu.sh
export PARTITION_TEST_DEVICE=${PARTITION_TEST_DEVICE:-cuda:0}
# Not those of the host's own allocator, kernels and processes, nor those whose error ends the use of a GPU.
runtime=(bfloat16 bit_identity clipping curvature every_split executor gradients noise optimizer recompute replicas
    reuse shared_ranks)
files=("${runtime[@]/#/tests/runtime/test_}")
files=("${files[@]/%/.py}")
# Warnings of torch that pytest would make errors: a thread of autograd's has no context before its first product, and a
# profiler beside a GPU says that it clears its events.
exec "$python" -m pytest -p no:benchmark -W 'ignore:Attempting to run cuBLAS:UserWarning' \
    -W 'ignore:Warning:UserWarning' \
    -m "slow or not slow" -k "not allocator and not processes and not profile and not is_refused and not scratch \
    and not to_the_byte and not predicted_bytes and not nothing_is_allocated and not depend_on_threads" "$@" \
    tests/ops/test_{activations,affine,block_functional,dropout,functional,gate,losses,mixed,normalisation,norms}.py \
    tests/ops/test_{pairs,second,sums}.py "${files[@]}"
