#!/usr/bin/env python3
"""Writes docs/methods.md from the registry (list and describe), and the pictures of every method's mask on a real head.

  scripts/make_method_docs.py                                  the text, with the pictures there are
  scripts/make_method_docs.py --check                          says whether the text is stale (exit 1)
  scripts/make_method_docs.py --pictures c.safetensors --layer 14 --head 4   draws the pictures anew, then the text

The capture is one of `prefillbench capture`. Drawing needs numpy, safetensors, torch and Pillow; the text needs nothing.
"""
import argparse
import difflib
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
MASKS = ROOT / "docs" / "masks"
CALIBRATED = "experiments/models/smollm2-135m-instruct-128k"
# What the pictures are drawn with where the defaults are made for 128K tokens; {} elsewhere.
SETTINGS = {
    "anchor": {"block": 64, "step": 8, "theta": 10},
    "block_topk": {"block": 64, "k": 12},
    "composed": {"estimator": "energy", "selector": "max_ratio", "alpha": 0.1},
    "flashprefill": {"block": 64, "window": 2},
    "flashprefill2": {"window": 2},
    "flexprefill": {"block_size": 64, "min_budget": 128, "gamma": 0.97},
    "minference": {"vertical": 100, "slash": 256},
    "oracle": {"density": 0.2},
    "pbs": {"block": 64},
    "prism": {"block": 64},
    "random": {"density": 0.2},
    "sale": {"thresholds": f"{CALIBRATED}/sale.json"},
    "shareprefill": {"block_size": 64, "min_budget": 128, "lookup": f"{CALIBRATED}/shareprefill.json"},
    "sparge": {"block_q": 64, "topk": 0.3},
    "streaming": {"sink": 64, "local": 512},
    "trianglemix": {"starting_layer": 0},
    "trishape": {"sink": 64, "local": 1024, "last": 256},
    "unisparse": {"block": 64, "p": 0.97},
    "xattention": {"block": 64, "stride": 8, "threshold": 0.97},
}
PIXEL = 16  # tokens per picture element


def ask(binary, *words):
    return json.loads(subprocess.run([binary, *words, "--json"], check=True, capture_output=True, text=True).stdout)


def token_mask(path, head, n):
    """Share of the PIXEL x PIXEL tokens of each picture element that a plan file's head computes."""
    import numpy as np
    from safetensors import safe_open

    with safe_open(path, "np") as f:
        meta = f.metadata()
        bq, bk = int(meta["block_q"]), int(meta["block_k"])
        keys = np.zeros((-(-n // bq), n), bool)
        ptr, idx = f.get_tensor("tile_ptr")[head], f.get_tensor("tile_idx")[head]
        for r in range(len(keys)):
            for t in idx[ptr[r]:ptr[r + 1]]:
                keys[r, t * bk:(t + 1) * bk] = True
        if "col_ptr" in f.keys():
            group = int(meta["col_group"]) // bq
            ptr, idx = f.get_tensor("col_ptr")[head], f.get_tensor("col_idx")[head]
            for r in range(len(keys)):
                keys[r, idx[ptr[r // group]:ptr[r // group + 1]]] = True
    out = np.zeros((n // PIXEL, n // PIXEL))
    for i in range(n // PIXEL):  # rows of queries, averaged over the tile rows that they lie in
        rows = keys[i * PIXEL // bq:((i + 1) * PIXEL - 1) // bq + 1].mean(0)
        out[i] = rows[:n // PIXEL * PIXEL].reshape(-1, PIXEL).mean(1)
    return np.tril(out)


def attention(path, layer, head):
    """Largest probability of each picture element of full attention."""
    import torch
    from safetensors import safe_open

    with safe_open(path, "pt") as f:
        q, k = f.get_tensor(f"layer.{layer}.q"), f.get_tensor(f"layer.{layer}.k")
    n = q.shape[1] // PIXEL * PIXEL
    q, k = q[head, :n].float(), k[head // (q.shape[0] // k.shape[0]), :n].float()
    logits = (q @ k.T / q.shape[1] ** 0.5).masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), -torch.inf)
    return logits.softmax(-1).view(n // PIXEL, PIXEL, n // PIXEL, PIXEL).amax((1, 3)).numpy()


def draw(mask, true, path):
    """Grey: attention, darker is more (logarithmic). Blue: what the method computes."""
    import numpy as np
    from PIL import Image

    dark = np.clip((np.log10(np.maximum(true, 1e-6)) + 4.5) / 3.5, 0, 1)[..., None]
    size = mask.shape[0]
    below = np.tril(np.ones((size, size)))[..., None]
    tint = mask[..., None] * np.array([0.33, 0.62, 0.93]) + (1 - mask[..., None]) * np.array([0.96, 0.94, 0.90])
    image = below * tint * (1 - 0.85 * dark) + (1 - below)
    image = Image.fromarray((255 * image).astype("uint8")).quantize(24, method=Image.Quantize.MEDIANCUT)
    image.save(path, optimize=True)


def make_pictures(args):
    MASKS.mkdir(parents=True, exist_ok=True)
    true = attention(args.pictures, args.layer, args.head)
    captions = {}
    with tempfile.TemporaryDirectory() as folder:
        for entry in ask(args.binary, "list", "methods"):
            name, plan = entry["name"], f"{folder}/plan.safetensors"
            settings = SETTINGS.get(name, {})
            sets = [x for key, value in settings.items() for x in ("--set", f"{key}={value}")]
            told = json.loads(subprocess.run(
                [args.binary, "select", "--method", name, *sets, "--qkv", args.pictures, "--layer", str(args.layer), "--history", "--json",
                 "--out", plan, "--backend", args.backend], check=True, capture_output=True, text=True, cwd=ROOT).stdout)
            draw(token_mask(plan, args.head, told["tokens"]), true, MASKS / f"{name}.png")
            captions[name] = {"settings": settings, "density": round(told["density_per_head"][args.head], 3),
                              "recall": round(told["recall_per_head"][args.head], 3)}
            print(name, captions[name], flush=True)
    where = {"layer": args.layer, "head": args.head, "tokens": told["tokens"], "prompt": args.prompt}
    (MASKS / "captions.json").write_text(json.dumps({"where": where, "methods": captions}, indent=1) + "\n")


def cell(text):
    return str(text).replace("|", "\\|").replace("\n", " ")


def range_text(p):
    if "choices" in p:
        return ", ".join(p["choices"])
    lo, hi = p.get("range", (None, None))
    if lo is not None and hi is not None:
        return f"{lo:g} to {hi:g}"
    return f"at least {lo:g}" if lo is not None else f"at most {hi:g}" if hi is not None else ""


def page(args):
    captions = json.loads((MASKS / "captions.json").read_text()) if (MASKS / "captions.json").exists() else None
    all_methods = [ask(args.binary, "describe", entry["name"]) for entry in ask(args.binary, "list", "methods")]
    lines = ["# Methods", "", "Generated from the registry by `scripts/make_method_docs.py`; edit the method files instead.", ""]
    if captions:
        w = captions["where"]
        lines += [f"The pictures show one head on a real prompt ({w['prompt']}, {w['tokens']:,} tokens, layer {w['layer']}, head {w['head']} of "
                  "smollm2-135m-instruct-128k): queries from top to bottom, keys from left to right, grey what full attention looks at (logarithmic), "
                  "blue what the method computes (windows by the tiles of 64 that they touch). Density is the share of causal pairs computed in that head, recall the share of its attention "
                  "that lies on them. Budgets differ from method to method: the pictures show kinds of patterns and rank nobody.", ""]
    lines += ["| method | in one line | version |", "|---|---|---|"]
    lines += [f"| [{m['name']}](#{m['name']}) | {cell(m['doc'])} | {m['version']} |" for m in all_methods]
    for m in all_methods:
        lines += ["", f"## {m['name']}", "", m["doc"][0].upper() + m["doc"][1:] + f". File: `{m['file']}`.", ""]
        caption = captions and captions["methods"].get(m["name"])
        if caption:
            given = ", ".join(f"{k}={v}" for k, v in caption["settings"].items()) or "defaults"
            lines += [f"![mask of {m['name']}](masks/{m['name']}.png)", "",
                      f"*{given}: density {caption['density']:g}, recall {caption['recall']:g}*", ""]
        lines.append(f"- **Source.** {m['source']}")
        if m["deviations"]:
            lines.append(f"- **Differs from the source.** {m['deviations']}")
        lines.append(f"- **Cost of selection.** {m['cost']}")
        if m["knob"]:
            lines.append(f"- **Main knob.** `{m['knob']}`")
        if m["params"]:
            lines += ["", "| parameter | type | default | range | meaning |", "|---|---|---|---|---|"]
            lines += [f"| `{p['name']}` | {p['type']} | `{json.dumps(p['default'])}` | {cell(range_text(p))} | {cell(p['doc'])} |" for p in m["params"]]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=str(ROOT / "build/cpu/prefillbench"))
    parser.add_argument("--backend", default="cpu", help="what selects")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--pictures", help="capture to draw on")
    parser.add_argument("--prompt", default="key-value retrieval", help="what the captured prompt is, for the text")
    parser.add_argument("--layer", type=int, default=14)
    parser.add_argument("--head", type=int, default=4)
    args = parser.parse_args()
    if args.pictures:
        args.pictures = str(pathlib.Path(args.pictures).resolve())
        make_pictures(args)
    out, text = ROOT / "docs/methods.md", page(args)
    if not args.check:
        out.write_text(text, encoding="utf-8")
        return 0
    there = out.read_text(encoding="utf-8") if out.exists() else ""
    if there == text:
        return 0
    sys.stdout.writelines(list(difflib.unified_diff(there.splitlines(True), text.splitlines(True), "docs/methods.md", "the registry"))[:40])
    print("docs/methods.md is stale: run scripts/make_method_docs.py")
    return 1


if __name__ == "__main__":
    sys.exit(main())
