#!/usr/bin/env python3
"""One process against several that share a model (--tensor-parallel): the same logits and greedy tokens, and how much faster.

    scripts/two_gpus.py PROGRAM OUT [--experiment experiments/two-gpus.yaml] [--model NAME] [--ranks 2] [--backend cuda] [--skip-logits]

Writes OUT/two-gpus.json (comparison and times) and OUT/results (rows); prints both as tables. Exits with 1 when logits differ by more than
rounding (normalised mean squared error above 1e-3 for 16-bit models) or the first greedy token differs.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys

import numpy

ROOT = pathlib.Path(__file__).resolve().parents[1]


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("program", type=pathlib.Path)
    p.add_argument("out", type=pathlib.Path)
    p.add_argument("--experiment", type=pathlib.Path, default=ROOT / "experiments" / "two-gpus.yaml")
    p.add_argument("--model", default="smollm2-135m-instruct-128k", help="for the logits")
    p.add_argument("--ranks", type=int, default=2)
    p.add_argument("--backend", default="cuda", help="for the logits")
    p.add_argument("--dtype", default="auto", help="for the logits")
    p.add_argument("--tokens", type=int, default=1200, help="prompt whose logits are all compared")
    p.add_argument("--long", type=int, default=8000, help="prompt that is continued greedily")
    p.add_argument("--skip-logits", action="store_true")
    p.add_argument("--skip-times", action="store_true")
    return p.parse_args()


def call(*args):
    done = subprocess.run([str(a) for a in args], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, args))}\nended with {done.returncode}")
    return done.stdout


def prompt_ids(a, tokens):
    """A pass-key prompt of this length, as token ids in a file."""
    lines, text, ids = a.out / "prompt.jsonl", a.out / "prompt.txt", a.out / f"ids{tokens}.json"
    call(a.program, "generate", "--task", "passkey", "--tokens", tokens, "--count", 1, "--seed", 1, "--model", a.model, "--out", lines)
    row = json.loads(lines.read_text().splitlines()[0])
    text.write_text(row["prompt"] if "prompt" in row else row["context"] + row["input"], encoding="utf-8")
    ids.write_text(json.dumps(json.loads(call(a.program, "tokenize", "--model", a.model, "--file", text, "--json"))["ids"]))
    return ids


def tensors(path):
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    head = json.loads(data[8:8 + size])
    dtypes = {"F32": numpy.float32, "I32": numpy.int32}
    out = {}
    for name, e in head.items():
        if name != "__metadata__":
            begin, end = e["data_offsets"]
            out[name] = numpy.frombuffer(data[8 + size + begin:8 + size + end], dtypes[e["dtype"]]).reshape(e["shape"])
    return out


def forward(a, ids, ranks, *more):
    out = a.out / "forward.safetensors"
    call(a.program, "forward", "--model", a.model, "--backend", a.backend, "--dtype", a.dtype, "--ids", ids, "--out", out,
         "--tensor-parallel", ranks, *more)
    found = tensors(out)
    out.unlink()
    return found


def log_softmax(x):
    x = x.astype(numpy.float64)
    x = x - x.max(-1, keepdims=True)
    return x - numpy.log(numpy.exp(x).sum(-1, keepdims=True))


def compare_logits(a):
    ids = prompt_ids(a, a.tokens)
    long_ids = prompt_ids(a, a.long)
    found = {}
    for method in ("dense", "flashprefill"):
        one, shared = (forward(a, ids, r, "--method", method)["logits"] for r in (1, a.ranks))
        p, q = log_softmax(one), log_softmax(shared)
        greedy = [forward(a, long_ids, r, "--method", method, "--greedy", 16)["greedy"].tolist() for r in (1, a.ranks)]
        found[method] = {
            "tokens": len(one),
            "nmse": float(((shared.astype(numpy.float64) - one) ** 2).sum() / (one.astype(numpy.float64) ** 2).sum()),
            "same_best_token": float((one.argmax(-1) == shared.argmax(-1)).mean()),
            "mean_kl": float((numpy.exp(p) * (p - q)).sum(-1).mean()),
            "greedy_prompt": a.long, "greedy_one": greedy[0], "greedy_shared": greedy[1],
            "greedy_equal": sum(1 for _ in iter_equal(*greedy))}
        print(f"{method:14} nmse {found[method]['nmse']:.2e}  same best token {100 * found[method]['same_best_token']:.2f} %  "
              f"mean KL {found[method]['mean_kl']:.2e}  greedy tokens equal {found[method]['greedy_equal']}/16", flush=True)
    return found


def iter_equal(x, y):
    for a, b in zip(x, y):
        if a != b:
            return
        yield a


def rows_of(folder):
    """{(task, tokens, method): {sample: record}}"""
    out = {}
    for spec_file in sorted(folder.rglob("spec.json")):
        spec = json.loads(spec_file.read_text())
        key = spec["workload"]["task"], spec["workload"]["tokens"], spec["method"]["label"]
        for log in sorted(spec_file.parent.glob("samples*.jsonl")):
            for line in log.read_text().splitlines():
                record = json.loads(line)
                out.setdefault(key, {})[record["sample"]] = record
    return out


def compare_times(a):
    results = a.out / "results"
    name = next(line.split(":", 1)[1].strip() for line in a.experiment.read_text().splitlines() if line.startswith("name:"))
    for more, folder in (((), name), (("--tensor-parallel", a.ranks), f"{name}-tp{a.ranks}")):
        code = subprocess.run([str(a.program), "run", str(a.experiment), "--results", str(results), *map(str, more)]).returncode
        if code not in (0, 1):
            sys.exit(f"run ended with {code}")
    one, shared = rows_of(results / name), rows_of(results / f"{name}-tp{a.ranks}")
    table = []
    print(f"\n{'task':14} {'tokens':>7} {'method':26} {'density':>15} {'TTFT s: 1':>10} {a.ranks:>8} {'gain':>6} {'attention s: 1':>15} {a.ranks:>8} {'gain':>6}"
          f" {'GB: 1':>7} {a.ranks:>6}  same answers")
    for key in sorted(one):
        pairs = [(x, shared[key][s]) for s, x in one[key].items() if s in shared.get(key, {}) and x["status"] == shared[key][s]["status"] == "ok"]
        if not pairs:
            print(f"{key[0]:14} {key[1]:7} {key[2]:26} nothing to compare: {[r.get('why') for r in list(one[key].values()) + list(shared.get(key, {}).values())]}")
            continue
        times = {f: [[t for r in side for t in r[f]] for side in zip(*pairs)] for f in ("ttft_s", "attention_s")}
        row = {"task": key[0], "tokens": key[1], "method": key[2], "pairs": len(pairs),
               "density": [statistics.mean(r["density"] for r in side) for side in zip(*pairs)],
               "peak_bytes": [max(r.get("device_peak_bytes", 0) for r in side) for side in zip(*pairs)],
               "same_answers": sum(x["prediction"] == y["prediction"] for x, y in pairs)}
        for field, (x, y) in times.items():
            row[field] = {"one": statistics.median(x), "shared": statistics.median(y), "one_range": [min(x), max(x)],
                          "shared_range": [min(y), max(y)], "gain": statistics.median(x) / statistics.median(y)}
        table.append(row)
        t, at = row["ttft_s"], row["attention_s"]
        print(f"{key[0]:14} {key[1]:7} {key[2]:26} {row['density'][0]:7.4f} {row['density'][1]:7.4f} {t['one']:10.4f} {t['shared']:8.4f} {t['gain']:5.2f}x"
              f" {at['one']:15.4f} {at['shared']:8.4f} {at['gain']:5.2f}x {row['peak_bytes'][0] / 1e9:7.2f} {row['peak_bytes'][1] / 1e9:6.2f}"
              f"  {row['same_answers']}/{len(pairs)}")
    return table


def main():
    a = arguments()
    a.out.mkdir(parents=True, exist_ok=True)
    found = {"ranks": a.ranks}
    if not a.skip_logits:
        found["logits"] = compare_logits(a)
    if not a.skip_times:
        found["times"] = compare_times(a)
    (a.out / "two-gpus.json").write_text(json.dumps(found, indent=1) + "\n")
    bad = [m for m, c in found.get("logits", {}).items() if not c["nmse"] < 1e-3 or c["greedy_equal"] == 0]
    if bad:
        sys.exit(f"ranks that share the model compute something else: {', '.join(bad)}")


if __name__ == "__main__":
    main()
