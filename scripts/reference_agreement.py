#!/usr/bin/env python3
"""Compares what `prefillbench select` chooses on captured Q and K of a real model with what the released code of each
method would choose (restated in scripts/fixtures/reference_selections.py).

  prefillbench capture --model DIR --prompt-file P --layers 0,7,20 --out capture.safetensors
  scripts/reference_agreement.py --capture capture.safetensors [--methods xattention,prism] [--binary build/cpu/prefillbench]

One line per method, setting and layer; exit code 1 when an agreement is below --floor (0.995 of tiles or columns).
"""
import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

import torch
from safetensors import safe_open

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "fixtures"))
import reference_selections as ref  # noqa: E402

# method: (parameters for both sides, parameters of ours alone, form of the result)
SETTINGS = {
    "xattention": [({"stride": 16, "threshold": 0.9, "path": "fused"}, {"semantics": "released"}, "tiles"),
                   ({"stride": 8, "threshold": 0.8, "path": "torch"}, {"semantics": "released"}, "tiles")],
    "flashprefill": [({"alpha": 0.18}, {"semantics": "released"}, "tiles")],
    "flashprefill2": [({"alpha": 0.1}, {}, "tiles")],
    "prism": [({"p": 0.95, "path": "torch"}, {"semantics": "released"}, "tiles"),
              ({"p": 0.93, "path": "fused"}, {"semantics": "released"}, "tiles")],
    "sparge": [({"rule": "topk", "topk": 0.5}, {"semantics": "released"}, "tiles")],
    "anchor": [({"theta": 12.0, "block": 64, "step": 8}, {"semantics": "released"}, "columns")],
    "sale": [({"tau": 0.004}, {"dense_below": 0}, "tiles")],
    "pbs": [({"p": 0.9}, {"semantics": "released"}, "keys")],
}


def packed_rows(params, group):
    """FlashPrefill V2 cuts tiles within a token's heads when the group does not divide 128; ours takes whole tokens."""
    tokens = 16
    while tokens * 2 * group <= 128:
        tokens *= 2
    return {**params, "packed_rows": tokens * group}


def selected(path, form, heads, n):
    """A plan file as the reference's tensor: bool [heads, rows, key tiles], [heads, groups, n] or [heads, rows, n]."""
    with safe_open(path, "pt") as f:
        meta = f.metadata()
        block_q, block_k = int(meta["block_q"]), int(meta["block_k"])
        rows, cols = -(-n // block_q), -(-n // block_k)

        def filled(ptr, idx, groups, width):
            out = torch.zeros(heads, groups, width, dtype=torch.bool)
            for h in range(heads):
                for g in range(groups):
                    out[h, g, idx[h, ptr[h, g]:ptr[h, g + 1]].long()] = True
            return out

        tiles = filled(f.get_tensor("tile_ptr"), f.get_tensor("tile_idx"), rows, cols)
        if form == "tiles":
            return tiles, block_q, block_k
        ptr = f.get_tensor("col_ptr")
        columns = filled(ptr, f.get_tensor("col_idx"), ptr.shape[1] - 1, n)
    if form == "columns":
        return columns, block_q, block_k
    keys = tiles.repeat_interleave(block_k, 2)[:, :, :n] | columns.repeat_interleave(rows // columns.shape[1], 1)
    last = (torch.arange(1, rows + 1) * block_q).clamp(max=n)
    return keys & (torch.arange(n)[None, None, :] < last[None, :, None]), block_q, block_k


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capture", required=True, help="safetensors with layer.N.q [Hq,S,D] and layer.N.k [Hkv,S,D]")
    parser.add_argument("--binary", default="build/cpu/prefillbench")
    parser.add_argument("--methods", default=",".join(SETTINGS))
    parser.add_argument("--floor", type=float, default=0.995)
    args = parser.parse_args()
    unknown = set(args.methods.split(",")) - set(SETTINGS)
    if unknown:
        parser.error(f"no reference for {', '.join(sorted(unknown))}; there is {', '.join(SETTINGS)}")
    failed = False
    with safe_open(args.capture, "pt") as f, tempfile.TemporaryDirectory() as folder:
        layers = sorted(int(m.group(1)) for key in f.keys() if (m := re.fullmatch(r"layer\.(\d+)\.q", key)))
        for layer in layers:
            q, k = f.get_tensor(f"layer.{layer}.q"), f.get_tensor(f"layer.{layer}.k")
            heads, n = q.shape[0], q.shape[1]
            for method in args.methods.split(","):
                for params, ours, form in SETTINGS[method]:
                    shared = packed_rows(params, heads // k.shape[0]) if method == "flashprefill2" else params
                    out = f"{folder}/plan.safetensors"
                    sets = [x for key, value in {**shared, **ours}.items() for x in ("--set", f"{key}={value}")]
                    command = [args.binary, "select", "--method", method, *sets, "--qkv", args.capture, "--layer", str(layer), "--out", out]
                    done = subprocess.run(command, capture_output=True, text=True)
                    if done.returncode:
                        sys.exit(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
                    got, block_q, block_k = selected(out, form, heads, n)
                    want = getattr(ref, method)(q, k, **shared)
                    want = want.repeat_interleave(heads // want.shape[0], 0)
                    if form == "columns":  # a plan file holds the columns outside the first pass's tiles
                        want[:, :, :shared["block"] * shared["step"]] = False
                        got[:, :, :shared["block"] * shared["step"]] = False
                    if form == "tiles":  # a plan holds the diagonal whether or not the release forces it
                        r, c = torch.arange(want.shape[1])[:, None], torch.arange(want.shape[2])[None, :]
                        want |= ref.lower(want.shape[1], want.shape[2], block_q, block_k, n) & ((c + 1) * block_k > r * block_q)
                    agree = (got == want).float().mean().item()
                    failed |= agree < args.floor
                    print(f"layer {layer:3d}  {method:14s} {agree:.5f}  ({int((got != want).sum())} of {got.numel()} differ; "
                          f"selected {want.float().mean():.3f})  {shared}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
