#!/usr/bin/env python3
"""Says on which share of the causal pairs the plans of two backends agree, for every method, on Q and K of a real model.

  prefillbench capture --model smollm2-135m-instruct-128k --prompt-file prompt.txt --layers 4,14,24 --dtype bfloat16 --out c.safetensors
  scripts/plan_agreement.py c.safetensors --backends cpu cuda

One line per method: the smallest agreement of any head and layer, and the mean; exit status 1 when one is below --floor. Needs numpy and
safetensors.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np
from safetensors import safe_open

from make_method_docs import ROOT, SETTINGS, ask

SKIPPED = {"dense", "random"}  # nothing to compare: no choice, or one of the host's random numbers


def read_plan(path):
    with safe_open(path, "numpy") as f:
        return {k: f.get_tensor(k) for k in f.keys()}, f.metadata()


def row_keys(plan, meta, head, row, n):
    """Keys that the rows' queries may see, bool [n]; causality inside the row is left out."""
    tensors, block_q, block_k = plan, int(meta["block_q"]), int(meta["block_k"])
    keys = np.zeros(n, bool)
    begin, end = tensors["tile_ptr"][head, row : row + 2]
    for tile in tensors["tile_idx"][head, begin:end]:
        keys[tile * block_k : (tile + 1) * block_k] = True
    if "col_ptr" in tensors:
        group = row * block_q // int(meta["col_group"])
        begin, end = tensors["col_ptr"][head, group : group + 2]
        keys[tensors["col_idx"][head, begin:end]] = True
    return keys


def agreement(a, b, n):
    """Share of the causal pairs on which two plans of one grid say the same, per head."""
    (left, meta), (right, other) = a, b
    if meta["block_q"] != other["block_q"]:
        sys.exit(f"the plans have rows of {meta['block_q']} and {other['block_q']} queries")
    block_q = int(meta["block_q"])
    shares = []
    for head in range(left["tile_ptr"].shape[0]):
        different = 0
        for row in range(left["tile_ptr"].shape[1] - 1):
            first, last = row * block_q, min(n, (row + 1) * block_q) - 1
            unequal = np.flatnonzero(row_keys(left, meta, head, row, n) != row_keys(right, other, head, row, n))
            # key j is before last - max(first, j) + 1 of the row's queries
            different += np.clip(last - np.maximum(unequal, first) + 1, 0, None).sum()
        shares.append(1 - different / (n * (n + 1) / 2))
    return shares


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("captures", nargs="+", help="files of `prefillbench capture`")
    p.add_argument("--backends", nargs=2, default=["cpu", "cuda"])
    p.add_argument("--binary", default=str(ROOT / "build" / "cuda" / "prefillbench"))
    p.add_argument("--methods", default="", help="comma-separated; default: all that choose something")
    p.add_argument("--floor", type=float, default=0.995, help="least agreement of a method's mean (default %(default)s)")
    args = p.parse_args()
    names = [x for x in args.methods.split(",") if x] or [e["name"] for e in ask(args.binary, "list", "methods") if e["name"] not in SKIPPED]
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            shares = []
            for capture in map(pathlib.Path, args.captures):
                with safe_open(capture, "numpy") as f:
                    layers = sorted(int(m[1]) for m in (re.fullmatch(r"layer\.(\d+)\.q", k) for k in f.keys()) if m)
                for layer in layers:
                    plans = []
                    for backend in args.backends:
                        out = f"{folder}/{backend}.safetensors"
                        sets = [x for k, v in SETTINGS.get(name, {}).items() for x in ("--set", f"{k}={v}")]
                        done = subprocess.run([args.binary, "select", "--method", name, *sets, "--qkv", capture.resolve(), "--layer", str(layer),
                                               "--backend", backend, "--out", out, "--json"], capture_output=True, text=True, cwd=ROOT)
                        if done.returncode != 0:
                            sys.exit(f"{name} on {backend}: {done.stderr.strip()}")
                        plans.append(read_plan(out))
                        n = json.loads(done.stdout)["tokens"]
                    shares += agreement(*plans, n)
            low = np.mean(shares) < args.floor
            failed = failed or bool(low)
            print(f"{name:14} mean {100 * np.mean(shares):8.4f} %  least {100 * np.min(shares):8.4f} %  {len(shares)} heads{'  BELOW' if low else ''}", flush=True)
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
