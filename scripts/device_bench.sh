#!/usr/bin/env bash
# Verifies the CUDA kernels and runs every benchmark of them in one go, on a machine with a GPU:
#   scripts/device_bench.sh OUT_DIR [BUILD_DIR]
# Leaves OUT_DIR/{machine.json,check.txt,tests.txt,attention.jsonl,operators.jsonl,baseline.json} and ends with a table. Nothing is timed
# that was not verified in the same run. BUILD_DIR (default build/cuda) is configured and built when it holds no
# cuda_probe; -DLIBTORCH_ROOT and the like can be given in CMAKE_ARGS. The C++ compiler must link libstdc++ as a shared
# library, as LibTorch does: with a second, static copy every program aborts at exit (free(): invalid pointer).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:?usage: scripts/device_bench.sh OUT_DIR [BUILD_DIR]}
build=${2:-$root/build/cuda}
mkdir -p "$out"
command -v nvidia-smi >/dev/null || { echo "no nvidia-smi: this needs a machine with an NVIDIA GPU" >&2; exit 2; }

if [ ! -x "$build/bench/cuda_probe" ]; then
  cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DPREFILL_CUDA=ON ${CMAKE_ARGS:-}
  cmake --build "$build" --target cuda_probe test_cuda bench_cuda_attention bench_cuda_methods
fi

IFS=, read -r name driver memory power < <(nvidia-smi --query-gpu=name,driver_version,memory.total,power.limit --format=csv,noheader -i 0)
printf '{"gpu": "%s", "driver": "%s", "memory": "%s", "power_limit": "%s", "kernel": "%s", "nvcc": "%s", "commit": "%s", "date": "%s"}\n' \
  "$name" "${driver# }" "${memory# }" "${power# }" "$(uname -r)" \
  "$(nvcc --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\).*/\1/p')" \
  "$(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo unknown)" "$(date -u +%FT%TZ)" >"$out/machine.json"

"$build/bench/cuda_probe" check | tee "$out/check.txt" | grep -v '^ok' || true
if grep -q '^FAIL' "$out/check.txt" || ! grep -q '^ok' "$out/check.txt"; then
  echo "the kernels are wrong here, nothing is timed; see $out/check.txt" >&2
  exit 1
fi
if [ -x "$build/test_cuda" ]; then
  "$build/test_cuda" >"$out/tests.txt" 2>&1 || { tail -20 "$out/tests.txt"; echo "tests failed, nothing is timed" >&2; exit 1; }
fi
"$build/bench/cuda_probe" bench >"$out/attention.jsonl"
if [ -x "$build/bench/bench_cuda_methods" ]; then
  "$build/bench/bench_cuda_methods" >"$out/operators.jsonl"
fi
if [ -x "$build/bench/bench_cuda_attention" ]; then
  "$build/bench/bench_cuda_attention" --benchmark_out="$out/baseline.json" --benchmark_out_format=json >/dev/null
fi
cat "$out/machine.json"
python3 - "$out" <<'PY'
import json, os, sys
rows = [json.loads(line) for line in open(os.path.join(sys.argv[1], "attention.jsonl"))]
print(f"{'plan':8} {'tokens':>7} {'D':>4} {'tiles':>8} {'density':>8} {'ms':>9} {'min..max':>19} {'TFLOP/s':>8}")
for r in rows:
    tiles, spread = f"{r['q_tile']}x{r['k_tile']}", f"{r['ms_min']:.3f}..{r['ms_max']:.3f}"
    print(f"{r['name']:8} {r['n']:7} {r['dim']:4} {tiles:>8} {r['density']:8.3f} {r['ms']:9.3f} {spread:>19} {r['tflops']:8.1f}")
path = os.path.join(sys.argv[1], "operators.jsonl")
if os.path.exists(path):
    print(f"{'operator':26} {'tokens':>7} {'density':>8} {'ms':>9} {'min..max':>19} {'not attention':>13}")
    for r in map(json.loads, open(path)):
        if "error" in r:
            print(f"{r['label']:26} {r['n']:7} {r['error']}")
            continue
        spread = f"{r['ms_min']:.3f}..{r['ms_max']:.3f}"
        print(f"{r['label']:26} {r['n']:7} {r['density']:8.3f} {r['ms']:9.3f} {spread:>19} {r['selection_share']:13.2f}")
path = os.path.join(sys.argv[1], "baseline.json")
if os.path.exists(path):
    for b in json.load(open(path))["benchmarks"]:
        if b.get("aggregate_name", "median") == "median":
            print(f"{b['name']:60} {b['real_time']:9.3f} {b['time_unit']} {b.get('TFLOP/s', 0):8.1f} TFLOP/s")
PY
