#!/usr/bin/env bash
# Sets up, builds and runs every test. Ends with ctest's summary.
#
#   scripts/test.sh         all tests of the CPU build; with a GPU, of the CUDA build
#   scripts/test.sh --asan  before them, those of what parses or touches raw memory under address and undefined-behaviour
#                           sanitizers (doubles the time)
#   scripts/test.sh --cuda  compile the CUDA kernels even without a GPU (nvcc only)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
asan=no kernels=no
for arg in "$@"; do
  case "$arg" in
    --asan) asan=yes ;;
    --cuda) kernels=yes ;;
    *) echo "test: unknown argument '$arg' (--asan and --cuda are known)" >&2; exit 2 ;;
  esac
done

scripts/bootstrap.sh
.venv/bin/python scripts/fetch_model.py smollm2-135m-instruct-128k > /dev/null
if [ $asan = yes ]; then
  areas=()
  for a in core text tasks scoring kernels model; do
    if ls "tests/$a"/*.cpp > /dev/null 2>&1; then areas+=("$a"); fi
  done
  scripts/build.sh asan "${areas[@]/#/test_}"
  # LibTorch keeps what it allocates for the life of the process: leaks are not looked for here
  ASAN_OPTIONS=detect_leaks=0 ctest --test-dir build/asan -L "^($(IFS='|'; echo "${areas[*]}"))\$" -LE slow --output-on-failure -j 2
fi
# The CUDA programs load LibTorch's CUDA libraries even to list their tests, so they are built where there is a GPU; with
# nvcc alone the kernels can be compiled, and that is all that can be known.
preset=cpu
if { command -v nvcc || [ -x /usr/local/cuda/bin/nvcc ]; } > /dev/null && nvidia-smi -L > /dev/null 2>&1; then
  scripts/bootstrap.sh --cuda
  preset=cuda
fi
scripts/build.sh $preset
[ $kernels = no ] || [ $preset = cuda ] || scripts/build.sh cuda cuda_probe
ctest --test-dir build/$preset --output-on-failure -j 2 --no-tests=error
