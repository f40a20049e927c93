#!/usr/bin/env python3
"""Compares `prefillbench forward` with transformers on a real checkpoint and real text.

    scripts/check_parity.py --model FOLDER [--text FILE] [--tokens 1000] [--binary build/cpu/prefillbench]

Prints the largest difference of float32 logits, the share of positions whose best token agrees in float32 and in
bfloat16 (against transformers in float32), and whether 32 greedily decoded tokens are the same. Exits with 1 when a
bound of the project is missed: 2e-3, 99 % for bfloat16, equal continuations. Needs torch, transformers, safetensors.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

REPO = Path(__file__).resolve().parent.parent


def forward(binary, model, ids, *options):
    with tempfile.TemporaryDirectory() as temp:
        ids_file, out = Path(temp) / "ids.json", Path(temp) / "out.safetensors"
        ids_file.write_text(json.dumps(ids))
        subprocess.run([binary, "forward", "--model", model, "--ids", ids_file, "--out", out, *options], check=True,
                       stdout=subprocess.DEVNULL)
        return load_file(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", default=REPO / "README.md", type=Path)
    parser.add_argument("--tokens", default=1000, type=int)
    parser.add_argument("--binary", default=REPO / "build" / "cpu" / "prefillbench")
    parser.add_argument("--backend", default="auto")
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    ids = tokenizer(args.text.read_text())["input_ids"][:args.tokens]
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    with torch.no_grad():
        wanted = model(torch.tensor([ids])).logits[0]
        greedy = model.generate(torch.tensor([ids]), max_new_tokens=32, min_new_tokens=32, do_sample=False)[0, len(ids):]
    run = lambda *options: forward(args.binary, args.model, ids, "--backend", args.backend, *options)
    exact, narrow = run("--dtype", "float32")["logits"], run("--dtype", "bfloat16")["logits"]
    continued = run("--dtype", "float32", "--greedy", "32")["greedy"]
    error = (exact - wanted).abs().max().item()
    top1 = [(x.argmax(-1) == wanted.argmax(-1)).float().mean().item() for x in (exact, narrow)]
    same = continued.tolist() == greedy.tolist()
    print(f"{len(ids)} tokens of {args.text}: float32 max |d logit| {error:.2e}, top-1 {top1[0]:.4f}; "
          f"bfloat16 max |d logit| {(narrow - wanted).abs().max().item():.2e}, top-1 {top1[1]:.4f}; "
          f"greedy 32 {'equal' if same else 'DIFFERENT'}")
    sys.exit(0 if error <= 2e-3 and top1[1] >= 0.99 and same else 1)


if __name__ == "__main__":
    main()
