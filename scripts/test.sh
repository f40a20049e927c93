#!/usr/bin/env bash
# Sets up, builds and runs every test. Ends with ctest's summary.
#
#   scripts/test.sh            all tests, before them those of the parsing and memory-touching parts under sanitizers
#   scripts/test.sh --no-asan  without the sanitizer build
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
asan=yes
case "${1:-}" in
  "") ;;
  --no-asan) asan=no ;;
  *) echo "test: unknown argument '$1' (--no-asan is the only one)" >&2; exit 2 ;;
esac

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
# nvcc alone the kernels are compiled and that is all that can be known.
nvcc=no preset=cpu
if command -v nvcc > /dev/null || [ -x /usr/local/cuda/bin/nvcc ]; then nvcc=yes; fi
if [ $nvcc = yes ] && nvidia-smi -L > /dev/null 2>&1; then
  scripts/bootstrap.sh --cuda
  preset=cuda
fi
scripts/build.sh $preset
[ $nvcc = no ] || [ $preset = cuda ] || scripts/build.sh cuda cuda_probe
ctest --test-dir build/$preset --output-on-failure -j 2 --no-tests=error
