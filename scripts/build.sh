#!/usr/bin/env bash
# scripts/build.sh PRESET [TARGET...]: configures a preset of CMakePresets.json against .venv and builds it.
# Files are compiled in batches (a third of the time from scratch); for work on the code, where one file changes at a
# time, use the presets themselves or PREFILL_BATCH=1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
preset=${1:?usage: scripts/build.sh PRESET [TARGET...] (presets: cpu, cuda, dev, asan)}
shift
site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
batch=${PREFILL_BATCH:-16}
log=$(mktemp)
if ! cmake --preset "$preset" -Wno-dev -DLIBTORCH_ROOT="$site/torch" \
  -DCMAKE_UNITY_BUILD=$([ "$batch" -gt 1 ] && echo ON || echo OFF) -DCMAKE_UNITY_BUILD_BATCH_SIZE="$batch" > "$log" 2>&1; then
  cat "$log" >&2
  exit 1
fi
grep -E 'LibTorch [0-9]|CUDA kernels' "$log" >&2 || true
rm -f "$log"
cmake --build "build/$preset" ${1:+--target "$@"}
