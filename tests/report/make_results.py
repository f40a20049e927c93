#!/usr/bin/env python3
"""Writes a synthetic results folder (the runner's on-disk format) with known effects, for tests and for looking at figures.

    make_results.py OUT [--samples 10] [--tokens 2048,4096,8192] [--seed 1] [--broken]

Methods: dense; flexprefill at four gammas (lossless from gamma 0.9 on); minference (lossless, slow selection below 4K);
streaming (loses retrieval); random (poor); one setting that fails. With --broken: a torn last line, a partial run and
samples that ran out of memory.
"""
import argparse
import hashlib
import json
import math
import random
from pathlib import Path

# name, params, label, density, chance of a right answer, selection cost as a share of dense attention
METHODS = [
    ("dense", {}, "dense", 1.0, 1.0, 0.0),
    ("flexprefill", {"gamma": 0.8, "tau": 0.1}, "flexprefill gamma=0.8", 0.12, 0.75, 0.15),
    ("flexprefill", {"gamma": 0.9, "tau": 0.1}, "flexprefill gamma=0.9", 0.24, 0.97, 0.15),
    ("flexprefill", {"gamma": 0.95, "tau": 0.1}, "flexprefill gamma=0.95", 0.38, 1.0, 0.15),
    ("flexprefill", {"gamma": 0.98, "tau": 0.1}, "flexprefill gamma=0.98", 0.58, 1.0, 0.15),
    ("minference", {"vertical": 500, "slash": 1500}, "minference vertical=500 slash=1500", 0.3, 0.96, 0.1),
    ("minference", {"vertical": 1000, "slash": 3000}, "minference vertical=1000 slash=3000", 0.5, 1.0, 0.12),
    ("streaming", {"sink": 64, "local": 512}, "streaming sink=64 local=512", 0.15, 0.15, 0.0),
    ("streaming", {"sink": 64, "local": 1024}, "streaming sink=64 local=1024", 0.28, 0.3, 0.0),
    ("random", {"density": 0.3}, "random density=0.3", 0.3, 0.2, 0.01),
]
TASKS = {"passkey": 0.0, "number_string": 0.05, "kv_retrieval": 0.1}  # how much harder than pass key
TEXT_TASKS = ("perplexity", "agreement")  # with --tasks: read by position; a method errs by its missing density


def details(task, tokens, density, noise):
    """What the teacher-forced tasks write: means over ranges of positions, and over all."""
    edges = [0] + [512 << k for k in range(20) if 512 << k < tokens - 1] + [tokens - 1]
    positions = []
    for begin, end in zip(edges, edges[1:]):
        lost = (1 - density) * 0.1 * math.log2(2 + begin / 512)
        one = {"from": begin, "to": end, "n": end - begin, "nll": 3.0 - 0.05 * math.log2(1 + end) + lost * noise()}
        if task == "agreement":
            one.update(top1=1 - lost / 2, kl=lost / 3, dense_nll=3.0 - 0.05 * math.log2(1 + end))
        positions.append(one)
    means = {k: sum(p[k] * p["n"] for p in positions) / (tokens - 1) for k in positions[0] if k not in ("from", "to", "n")}
    return {"n": tokens - 1, **means, "positions": positions}


def write_run(root, rng, method, task, tokens, args, hardware="Example CPU 9000, 2 threads"):
    name, params, label, density, skill, selection = method
    spec = {
        "schema": 1, "experiment": "synthetic",
        "method": {"name": name, "version": 1, "params": params, "label": label},
        "model": {"name": "smollm2-135m-instruct-128k", "sha256": "00" * 32, "layers": 30, "q_heads": 9, "kv_heads": 3, "head_dim": 64},
        "workload": {"task": task, "version": 1, "params": {}, "tokens": tokens, "count": args.samples, "seed": 1,
                     "profile": "official", "max_new_tokens": 6},
        "backend": "cpu", "dtype": "float32", "threads": 2,
    }
    identity = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]
    spec["id"] = identity
    folder = root / "synthetic" / identity
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text(json.dumps(spec))
    (folder / "provenance.json").write_text(json.dumps({
        "schema": 1, "machine": "example", "git_sha": "0" * 40, "dirty": False, "compiler": "GNU-12.2.0", "libtorch": "2.11.0",
        "cpu": "Example CPU 9000", "isa": ["avx2"], "threads": 2, "argv": ["prefillbench", "run", "synthetic.yaml"],
        "yaml": "experiment: synthetic\nmethods:\n  - dense\n", "time": "2026-01-01T00:00:00Z", "hardware": hardware}))
    dense_attention = 0.14 * (tokens / 4096) ** 2 * 30 / 9
    rest = 1.6 * tokens / 4096
    lines = []
    for i in range(args.samples):
        drift = math.exp(rng.gauss(0, 0.02))
        hardness = TASKS.get(task, 0)
        dense_score = float(rng.random() < 0.99 - hardness * 0.5)
        hit = dense_score if rng.random() < 0.97 else 1 - dense_score
        score = dense_score if name == "dense" else float(hit and rng.random() < skill * (1 - hardness))
        d = 1.0 if name == "dense" else min(1.0, density * (4096 / tokens) ** 0.3 * math.exp(rng.gauss(0, 0.04)))
        overhead = 0.004 if name != "dense" else 0.0
        stages = {"estimate": dense_attention * selection * 0.7 * 4096 / tokens, "select": dense_attention * selection * 0.2,
                  "index": overhead, "attend": dense_attention * (1.1 * d + 0.02 if name != "dense" else 1.0), "observe": 0.0}
        noise = lambda: drift * math.exp(rng.gauss(0, 0.015))
        attention = [sum(stages.values()) * noise() for _ in range(2)]
        lines.append({
            "schema": 1, "sample": f"{task}-{i}", "status": "ok", "why": "", "score": score, "metric": "exact digits",
            "prediction": "71432" if score else "71 the", "answer": "71432", "tokens": tokens,
            "ttft_s": [rest * drift + a for a in attention], "attention_s": attention, "stages_s": stages, "decode_s": 0.4,
            "density": d, "layer_density": [d] * 30, "kernels": ["avx2-f32"], "facts": {}})
        if task in TEXT_TASKS:
            lines[-1]["details"] = read = details(task, tokens, d, noise)
            lines[-1]["score"] = math.exp(-read["nll"]) if task == "perplexity" else read["top1"]
            dense_score = math.exp(-details(task, tokens, 1.0, noise)["nll"]) if task == "perplexity" else 1.0
            lines[-1]["metric"] = "1/perplexity" if task == "perplexity" else "top-1 agreement with dense"
        if name != "dense":
            base = [dense_attention * noise() for _ in range(2)]
            lines[-1]["dense"] = {"ttft_s": [rest * drift + a for a in base], "attention_s": base, "score": dense_score}
    if args.broken and name == "minference" and tokens == 4096:
        lines[0].update(status="out_of_memory", why="1.5 GB more were asked for than there is", score=None)
        lines[1].update(status="failed", why="plan: head 3, row 7: tile 9 starts after the row's last query")
    text = "".join(json.dumps(x) + "\n" for x in lines)
    partial = args.broken and name == "random" and task == "passkey"
    if partial:
        text = text[: len(text) * 2 // 3]
    (folder / "samples.jsonl").write_text(text)
    if not partial:
        ok = sum(x["status"] == "ok" for x in lines)
        (folder / "summary.json").write_text(json.dumps({"schema": 1, "n": len(lines), "ok": ok}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--tokens", default="2048,4096,8192")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--broken", action="store_true")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    for tokens in map(int, args.tokens.split(",")):
        for task in args.tasks.split(","):
            for method in METHODS:
                write_run(args.out, rng, method, task, tokens, args)


if __name__ == "__main__":
    main()
