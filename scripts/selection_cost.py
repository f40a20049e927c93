#!/usr/bin/env python3
"""What choosing costs: every method's selection against dense attention on one captured layer, by turns in one process.

  prefillbench capture --model M --prompt-file P --layers 14 --max-tokens 8192 --out c.safetensors
  scripts/selection_cost.py --capture c.safetensors [--rounds 5] [--methods prism,sale]

Prints a markdown table: medians and the spread of the ratio. Only as good as the machine is quiet. Standard library only.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from make_method_docs import ROOT, SETTINGS, ask  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capture", required=True)
    parser.add_argument("--layer", type=int, default=14)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--methods", help="default: all")
    parser.add_argument("--backend", default="cpu")
    parser.add_argument("--binary", default=str(ROOT / "build/cpu/prefillbench"))
    args = parser.parse_args()
    names = args.methods.split(",") if args.methods else [m["name"] for m in ask(args.binary, "list", "methods")]
    capture = pathlib.Path(args.capture).resolve()
    print("| method | settings | density | estimate ms | select ms | index ms | dense ms | selection / dense, % (least to most) | whole / dense, % |")
    print("|---|---|---|---|---|---|---|---|---|")
    plan = f"{tempfile.mkdtemp()}/plan.safetensors"
    for name in names:
        sets = [x for key, value in SETTINGS.get(name, {}).items() for x in ("--set", f"{key}={value}")]
        told = json.loads(subprocess.run([args.binary, "select", "--method", name, *sets, "--qkv", capture, "--layer", str(args.layer), "--out", plan,
                                          "--time", str(args.rounds), "--json", "--backend", args.backend],
                                         check=True, capture_output=True, text=True, cwd=ROOT).stdout)
        s = told["seconds"]
        ms = lambda stage: f"{1000 * s[stage]['median']:.1f}"
        ratio = s["selection_over_dense"]
        whole = (s["selection"]["median"] + s["attend"]["median"]) / s["dense"]["median"]
        settings = " ".join(f"{k}={v}" for k, v in SETTINGS.get(name, {}).items()) or "defaults"
        print(f"| {name} | {settings} | {told['density']:.2f} | {ms('estimate')} | {ms('select')} | {ms('index')} | {ms('dense')} | "
              f"{100 * ratio['median']:.1f} ({100 * ratio['least']:.1f} to {100 * ratio['most']:.1f}) | {100 * whole:.0f} |", flush=True)


if __name__ == "__main__":
    main()
