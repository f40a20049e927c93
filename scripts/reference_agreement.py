#!/usr/bin/env python3
"""Compares what `prefillbench select` chooses on Q and K of a real model, under semantics: released, with what the
released code of each method would choose (restated in scripts/fixtures/reference_selection.py and
reference_selections.py).

  scripts/reference_agreement.py --model smollm2-135m-instruct-128k --prose FILE... --table docs/reference-agreement.md
  scripts/reference_agreement.py --captures a.safetensors b.safetensors --methods xattention,prism

The first form makes the captures: three layers, 4K and 8K tokens, a key-value prompt and the prose of the
FILEs, rounded to bfloat16. An agreement is the share of causal tiles (single keys for minference, pbs and anchor) on which both sides say
the same; exit code 1 when one is below --floor. Needs torch and safetensors.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import torch
from safetensors import safe_open
from safetensors.torch import save_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "fixtures"))
import reference_selection as stripes  # noqa: E402
import reference_selections as ref  # noqa: E402

NO_LIMIT = 10**9


def minference(q, k, vertical, slash):
    return stripes.minference(q, k, vertical, slash)


def flexprefill(q, k, gamma, tau, block_size, min_budget, count_unit=128):
    return stripes.flexprefill(q, k, gamma, tau, block_size, min_budget, NO_LIMIT, count_unit)[0]


def shareprefill(q, k, pattern_threshold, queryaware_threshold, block_size, min_budget):
    return flexprefill(q, k, pattern_threshold, queryaware_threshold, block_size, min_budget, count_unit=block_size)


def shareprefill_with_sharing(capture, layer, lookup, params):
    """The mask of a layer after the file's earlier ones, all by one state."""
    clusters = json.loads(pathlib.Path(lookup).read_text())["clusters"]
    layers, cluster_of = [], []
    for index in layers_of(capture):
        if index > layer:
            break
        q, k = tensors(capture, index)
        layers.append((q, k))
        cluster_of.append([next((c for c, members in clusters.items() if [index, h] in members), None) for h in range(q.shape[0])])
    masks, shared = stripes.shareprefill(layers, cluster_of, params["pattern_threshold"], params["similarity_threshold"], params["fallback_threshold"],
                                         params["queryaware_threshold"], params["block_size"], params["min_budget"])
    print(f"{'':14s} {shared} heads share up to layer {layer}")
    return masks[-1]


def flashprefill2(q, k, **params):
    """Its code cuts tiles within a token's heads when the group does not divide 128; ours takes whole tokens."""
    group = q.shape[0] // k.shape[0]
    tokens = 16
    while tokens * 2 * group <= params.pop("packed_rows", 128):
        tokens *= 2
    return ref.flashprefill2(q, k, packed_rows=tokens * group, **params)


# method: [(parameters of both sides, parameters of ours alone, what a result consists of)]
RELEASED = {"semantics": "released"}
SETTINGS = {
    "minference": [({"vertical": 100, "slash": 800}, RELEASED, "keys"), ({"vertical": 500, "slash": 700}, RELEASED, "keys")],
    "flexprefill": [({"gamma": 0.9, "tau": 0.1, "block_size": 128, "min_budget": 256}, RELEASED, "tiles"),
                    ({"gamma": 0.95, "tau": 0.2, "block_size": 64, "min_budget": 128}, RELEASED, "tiles")],
    "shareprefill": [({"pattern_threshold": 0.9, "queryaware_threshold": 0.1, "block_size": 128, "min_budget": 256}, RELEASED, "tiles"),
                     ({"pattern_threshold": 0.9, "queryaware_threshold": 0.05, "block_size": 64, "min_budget": 128, "similarity_threshold": 0.6,
                       "fallback_threshold": 100.0, "sharing": "equal heads of all layers"}, RELEASED, "tiles")],
    "xattention": [({"stride": 16, "threshold": 0.9, "path": "fused"}, RELEASED, "tiles"),
                   ({"stride": 8, "threshold": 0.8, "path": "torch"}, RELEASED, "tiles")],
    "flashprefill": [({"alpha": 0.18}, RELEASED, "tiles")],
    "flashprefill2": [({"alpha": 0.1}, {}, "tiles")],
    "prism": [({"p": 0.95, "path": "torch"}, RELEASED, "tiles"), ({"p": 0.93, "path": "fused"}, RELEASED, "tiles")],
    "sparge": [({"rule": "topk", "topk": 0.5}, RELEASED, "tiles"), ({"rule": "cdf", "cdf": 0.98}, RELEASED, "tiles")],
    "anchor": [({"theta": 12.0, "block": 64, "step": 8}, RELEASED, "columns"), ({"theta": 12.0, "block": 128, "step": 16}, RELEASED, "columns")],
    "sale": [({"tau": 0.004}, {"dense_below": 0}, "tiles")],
    "pbs": [({"p": 0.9}, RELEASED, "keys")],
}
MODEL_TOKENS = (4096, 8192)


def prompt(args, folder, kind, tokens):
    """File of a prompt; `capture --max-tokens` cuts the prose."""
    path = pathlib.Path(folder) / f"{kind}.txt"
    if kind == "prose":
        path.write_text("".join(pathlib.Path(p).read_text() for p in args.prose))
        return path
    made = f"{folder}/generated.jsonl"
    subprocess.run([args.binary, "generate", "--task", "kv_retrieval", "--model", args.model, "--tokens", str(tokens), "--count", "1",
                    "--seed", "7", "--out", made], check=True, capture_output=True)
    path.write_text(json.loads(pathlib.Path(made).read_text().splitlines()[0])["prompt"])
    return path


def captures(args, folder):
    """(name, file) of every prompt and length: Q, K, V of three layers in bfloat16. Files that are there are kept."""
    made = []
    for kind in ("retrieval", "prose"):
        for tokens in args.tokens:
            raw, out = f"{folder}/raw.safetensors", f"{folder}/{kind}-{tokens}.safetensors"
            made.append((f"{kind} {tokens // 1024}K", out))
            if pathlib.Path(out).exists():
                continue
            subprocess.run([args.binary, "capture", "--model", args.model, "--prompt-file", prompt(args, folder, kind, tokens), "--layers", args.layers,
                            "--out", raw, "--max-tokens", str(tokens), "--backend", args.backend], check=True, capture_output=True)
            with safe_open(raw, "pt") as f:
                save_file({key: f.get_tensor(key).bfloat16() for key in f.keys()}, out, metadata=f.metadata())
                print(f"{kind}: {f.metadata()['tokens']} tokens", flush=True)
            pathlib.Path(raw).unlink()
    return made


def layers_of(capture):
    with safe_open(capture, "pt") as f:
        return sorted(int(m.group(1)) for key in f.keys() if (m := re.fullmatch(r"layer\.(\d+)\.q", key)))


def tensors(capture, layer):
    with safe_open(capture, "pt") as f:
        return f.get_tensor(f"layer.{layer}.q"), f.get_tensor(f"layer.{layer}.k")


def write_lookup(path, capture):
    """Every head shares with the heads of its number in the captured layers."""
    layers = layers_of(capture)
    heads = tensors(capture, layers[0])[0].shape[0]
    clusters = {str(h): [[layer, h] for layer in layers] for h in range(heads)}
    pathlib.Path(path).write_text(json.dumps({"clusters": clusters, "shared_clusters": list(clusters)}))


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
        groups = ptr.shape[1] - 1
        columns = filled(ptr, f.get_tensor("col_idx"), groups, n)
        group_rows = int(meta["col_group"]) // block_q
    if form == "columns":
        return columns, int(meta["col_group"]), 1
    return tiles.repeat_interleave(block_k, 2)[:, :, :n] | columns.repeat_interleave(group_rows, 1)[:, :rows], block_q, 1


def compare(args, plan, capture, layer, method, params, ours, form):
    """-> (cells that differ, causal cells, share of them the reference selects)."""
    q, k = tensors(capture, layer)
    heads, n = q.shape[0], q.shape[1]
    given, lookup = {**params, **ours}, f"{pathlib.Path(plan).parent}/lookup.json"
    if "sharing" in given:
        write_lookup(lookup, capture)
        given = {**given, "sharing": "true", "lookup": lookup}
    sets = [x for key, value in given.items() for x in ("--set", f"{key}={value}")]
    command = [args.binary, "select", "--method", method, *sets, "--qkv", capture, "--layer", str(layer), "--out", plan, "--backend", args.backend,
               "--history"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
    got, rows_of, cols_of = selected(plan, form, heads, n)
    if "sharing" in params:
        want = shareprefill_with_sharing(capture, layer, lookup, params)
    else:
        want = globals().get(method, getattr(ref, method, None))(q, k, **params)
    want = want.repeat_interleave(heads // want.shape[0], 0)
    r, c = torch.arange(want.shape[1])[:, None], torch.arange(want.shape[2])[None, :]
    causal = c * cols_of < ((r + 1) * rows_of).clamp(max=n)
    if form == "columns":  # before the group; a plan file leaves out what the first pass's tiles hold
        causal = (c < r * rows_of) & (c >= params["block"] * params["step"])
    else:  # a plan holds the diagonal whether or not the release forces it
        want = want | ((c + 1) * cols_of > r * rows_of)
    differ = int(((got != want) & causal).sum())
    cells = int(causal.sum()) * heads
    return differ, cells, int((want & causal).sum()) / max(1, cells)


def table(results, floor):
    names = list(dict.fromkeys(name for name, *_ in results))
    lines = ["| method | settings | " + " | ".join(names) + " |", "|---|---|" + "---|" * len(names)]
    for method in dict.fromkeys(r[2] for r in results):
        for setting in dict.fromkeys(r[3] for r in results if r[2] == method):
            cells = []
            for name in names:
                rows = [r for r in results if r[0] == name and r[2] == method and r[3] == setting]
                if not rows[0][5]:
                    cells.append("-")
                    continue
                worst = min(1 - r[4] / r[5] for r in rows)
                cells.append(f"{100 * worst:.3f} ({100 * sum(r[6] for r in rows) / len(rows):.0f})" + ("" if worst >= floor else " **low**"))
            lines.append(f"| {method} | {setting} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captures", nargs="+", help="safetensors with layer.N.q [Hq,S,D] and layer.N.k [Hkv,S,D]")
    parser.add_argument("--model", help="makes the captures itself")
    parser.add_argument("--prose", nargs="+", help="with --model: text files, together at least 8K tokens")
    parser.add_argument("--keep", help="with --model: folder that keeps the captures")
    parser.add_argument("--layers", default="4,14,24")
    parser.add_argument("--tokens", type=int, nargs="+", default=MODEL_TOKENS)
    parser.add_argument("--backend", default="cpu")
    parser.add_argument("--binary", default="build/cpu/prefillbench")
    parser.add_argument("--methods", default=",".join(SETTINGS))
    parser.add_argument("--floor", type=float, default=0.995)
    parser.add_argument("--table", help="markdown file to write the table to, worst layer per cell")
    args = parser.parse_args()
    unknown = set(args.methods.split(",")) - set(SETTINGS)
    if unknown:
        parser.error(f"no reference for {', '.join(sorted(unknown))}; there is {', '.join(SETTINGS)}")
    if bool(args.captures) == bool(args.model) or bool(args.model) != bool(args.prose):
        parser.error("give --captures, or --model and --prose")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        if args.keep:
            pathlib.Path(args.keep).mkdir(parents=True, exist_ok=True)
        files = [(pathlib.Path(c).stem, c) for c in args.captures] if args.captures else captures(args, args.keep or folder)
        for name, capture in files:
            for layer in layers_of(capture):
                for method in args.methods.split(","):
                    for params, ours, form in SETTINGS[method]:
                        differ, cells, share = compare(args, f"{folder}/plan.safetensors", capture, layer, method, params, ours, form)
                        setting = " ".join(f"{key}={value}" for key, value in params.items())
                        results.append((name, layer, method, setting, differ, cells, share))
                        print(f"{name:14s} layer {layer:2d}  {method:14s} {1 - differ / max(1, cells):.5f}  ({differ} of {cells} differ; "
                              f"selected {share:.3f})  {setting}", flush=True)
    text = table(results, args.floor)
    print("\n" + text)
    if args.table:
        pathlib.Path(args.table).write_text(text)
    sys.exit(1 if any(1 - r[4] / max(1, r[5]) < args.floor for r in results) else 0)


if __name__ == "__main__":
    main()
