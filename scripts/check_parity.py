#!/usr/bin/env python3
"""Compares `prefillbench forward` with transformers on a real checkpoint and real text.

    scripts/check_parity.py --model smollm2-135m-instruct-128k
    scripts/check_parity.py --model /models/Llama-3.2-1B --text book.txt --tokens 4000

Prints the largest difference of float32 logits, the share of positions whose best token agrees in float32 and in
bfloat16 (both against transformers in float32), and whether 32 greedily decoded tokens are the same. Exits with 1 when
one of the project's bounds is missed: |d logit| <= 2e-3 in float32, 99 % of best tokens in bfloat16, equal continuations.
Needs torch, transformers and safetensors in the Python that runs it (.venv has torch alone), and a built prefillbench.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
HOME = Path(os.environ.get("PREFILLBENCH_HOME") or Path.home() / ".cache/prefillbench")
LOGIT_BOUND, TOP1_BOUND, GREEDY = 2e-3, 0.99, 32

try:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer
except ImportError as e:
    if not {"-h", "--help"} & set(sys.argv):
        sys.exit(f"check_parity: {e}: pip install torch transformers safetensors")


def forward(args, ids, *options):
    with tempfile.TemporaryDirectory() as temp:
        ids_file, out = Path(temp) / "ids.json", Path(temp) / "out.safetensors"
        ids_file.write_text(json.dumps(ids))
        command = [args.binary, "forward", "--model", args.model, "--ids", ids_file, "--out", out, "--backend", args.backend]
        done = subprocess.run([*map(str, command), *options], stdout=subprocess.DEVNULL)
        if done.returncode != 0:
            sys.exit(f"check_parity: prefillbench forward {' '.join(options)} failed (exit {done.returncode}); its message is above")
        return load_file(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="Hugging Face folder, or the name of a fetched model")
    parser.add_argument("--text", default=HOME / "prose" / "austen.txt", type=Path,
                        help="UTF-8 text; its first tokens are read (default: the prose of scripts/fetch_prose.py)")
    parser.add_argument("--tokens", default=1000, type=int, help="length of the prompt (default: %(default)s)")
    parser.add_argument("--binary", default=REPO / "build" / "cpu" / "prefillbench", type=Path, help="default: %(default)s")
    parser.add_argument("--backend", default="auto", help="see `prefillbench list backends` (default: %(default)s)")
    args = parser.parse_args()
    if not args.model.is_dir():
        args.model = HOME / args.model
    for path, mend in ((args.model / "config.json", "scripts/fetch_model.py fetches a model"),
                       (args.text, "scripts/fetch_prose.py fetches the default text"), (args.binary, "scripts/build.sh cpu builds it")):
        if not path.exists():
            sys.exit(f"check_parity: {path} is not there ({mend})")
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    text = args.text.read_text(encoding="utf-8")[:args.tokens * 20]
    ids = tokenizer(text)["input_ids"][:args.tokens]
    if len(ids) < args.tokens:
        sys.exit(f"check_parity: {args.text} has {len(ids)} tokens, --tokens asks for {args.tokens}")
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    with torch.no_grad():
        wanted = model(torch.tensor([ids])).logits[0]
        greedy = model.generate(torch.tensor([ids]), max_new_tokens=GREEDY, min_new_tokens=GREEDY, do_sample=False)[0, len(ids):]
    exact = forward(args, ids, "--dtype", "float32")["logits"]
    narrow = forward(args, ids, "--dtype", "bfloat16")["logits"]
    continued = forward(args, ids, "--dtype", "float32", "--greedy", str(GREEDY))["greedy"]
    same = continued.tolist() == greedy.tolist()
    good = same
    print(f"{len(ids)} tokens of {args.text} through {args.model.name}, against transformers in float32:")
    for name, logits in (("float32", exact), ("bfloat16", narrow)):
        error = (logits - wanted).abs().max().item()
        top1 = (logits.argmax(-1) == wanted.argmax(-1)).double().mean().item()
        good = good and (error <= LOGIT_BOUND if name == "float32" else top1 >= TOP1_BOUND)
        print(f"  {name:8}  max |d logit| {error:.2e}   top-1 agreement {100 * top1:.2f} %")
    print(f"  {GREEDY} greedy tokens in float32: {'equal' if same else 'DIFFERENT'}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
