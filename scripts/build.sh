#!/usr/bin/env bash
# scripts/build.sh PRESET [TARGET...]: configures a preset of CMakePresets.json against .venv and builds it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
preset=${1:?usage: scripts/build.sh PRESET [TARGET...] (presets: cpu, cuda, dev, asan)}
shift
site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
log=$(mktemp)
if ! cmake --preset "$preset" -Wno-dev -DLIBTORCH_ROOT="$site/torch" > "$log" 2>&1; then
  cat "$log" >&2
  exit 1
fi
grep -E 'LibTorch [0-9]|CUDA kernels' "$log" >&2 || true
rm -f "$log"
cmake --build "build/$preset" ${1:+--target "$@"}
