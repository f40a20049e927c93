#!/usr/bin/env python3
"""A tiny random checkpoint of every model family through every task: run, score, report, without an error.

    python3 tests/app/families.py PREFILLBENCH

Data are made up: InfiniteBench's twelve files, SQuAD, HotpotQA and a book. What `score` says of the stored predictions has to
be what `run` stored. Standard library only.
"""
import json
import os
import pathlib
import shutil
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/tasks")]
from end_to_end import ROWS, call, data  # noqa: E402
from tiny_model import write_checkpoint  # noqa: E402

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 1024}
FAMILIES = {  # tokenizer of tests/text/fixtures, config
    "llama2": ("sentencepiece", {"tie_word_embeddings": False, "eos_token_id": 2}),
    "llama3": ("llama3", {"tie_word_embeddings": False, "rope_scaling": LLAMA3, "rope_theta": 500000.0, "eos_token_id": [645, 646]}),
    "qwen2": ("qwen2", {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "eos_token_id": 642, "use_sliding_window": False}),
    "qwen3": ("qwen2", {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "eos_token_id": 642, "use_sliding_window": False}),
    "mistral": ("llama2", {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "tie_word_embeddings": False,
                           "sliding_window": None, "eos_token_id": 2}),
    "smollm2": ("smollm", {"eos_token_id": 482}),
}
TOKENS = 2000
READ = ("perplexity", "agreement")


def make_data(folder):
    data(folder / "infinitebench")
    sentences = [f"In the year {1000 + i} the town of number {i} had {i * i % 97} houses and a well." for i in range(900)]
    (folder / "home/prose").mkdir(parents=True)
    (folder / "home/prose/austen.txt").write_text("".join(s + "\n" for s in sentences))
    articles = [{"title": f"T{i}", "paragraphs": [{"context": " ".join(sentences[5 * i:5 * i + 5]), "qas": [
        {"id": str(i), "question": f"How many houses had town {5 * i}?", "is_impossible": False,
         "answers": [{"text": str((5 * i) ** 2 % 97), "answer_start": 0}]}]}]} for i in range(40)]
    (folder / "squad.json").write_text(json.dumps({"data": articles}))
    items = [{"_id": str(i), "question": f"How many houses had town {5 * i}?", "answer": str((5 * i) ** 2 % 97),
              "context": [[f"T{i}-{k}", sentences[5 * i + k:5 * i + k + 2]] for k in range(3)]} for i in range(40)]
    (folder / "hotpot.json").write_text(json.dumps(items))


def check_scores(program, folder, run):
    """`score` of what `run` stored, row by row."""
    task = json.loads((run / "spec.json").read_text())["workload"]["task"]
    rows = [json.loads(line) for line in (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows and all(r["status"] == "ok" for r in rows), (run, [r.get("why") for r in rows])
    if task in READ:
        return
    file = folder / "predictions.jsonl"
    file.write_text("".join(json.dumps({"id": i, "prediction": r["prediction"], "ground_truth": r["answer"]}) + "\n" for i, r in enumerate(rows)))
    scored = json.loads(call(program, "score", "--task", task.removeprefix("infinitebench/"), "--predictions", file, "--json"))
    assert scored["n"] == len(rows) and abs(scored["score"] - sum(r["score"] for r in rows) / len(rows)) < 1e-12, (task, scored, rows)


def main():
    program = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        make_data(folder)
        tasks = [t["name"] for t in json.loads(call(program, "list", "tasks", "--json"))]
        tasks = [t for t in tasks if t != "planted"]
        assert {f"infinitebench/{t}" for t in ROWS} | set(READ) <= set(tasks) and sum(t.startswith("ruler/") for t in tasks) == 13, tasks
        env = {**os.environ, "PREFILLBENCH_INFINITEBENCH": str(folder / "infinitebench"), "PREFILLBENCH_HOME": str(folder / "home")}
        for family, (tokenizer, config) in FAMILIES.items():
            model = folder / family
            shutil.copytree(ROOT / "tests/text/fixtures" / tokenizer, model)
            write_checkpoint(model, vocab_size=704, **config)
            lines = []
            for task in tasks:
                params = {} if task in READ else {"max_new_tokens": 3}
                if task.startswith("ruler/qa"):
                    params["file"] = str(folder / ("squad.json" if task == "ruler/qa_1" else "hotpot.json"))
                lines.append(f"  - {{task: {task}, tokens: {TOKENS}, samples: 1, params: {json.dumps(params)}}}\n")
            (folder / f"{family}.yaml").write_text(
                f"schema: 1\nname: {family}\nmodel: {model}\nbackend: cpu\ndtype: float32\nworkloads:\n{''.join(lines)}"
                "methods:\n  - name: dense\n  - name: streaming\n    params: {sink: 64, local: 256}\n")
            call(program, "run", folder / f"{family}.yaml", "--results", folder / "results", "--quiet", env=env, cwd=folder)
            runs = sorted(p.parent for p in (folder / "results" / family).rglob("spec.json"))
            assert len(runs) == 2 * len(tasks), (family, len(runs), len(tasks))
            if family in ("llama2", "smollm2"):  # scoring does not see the model: two kinds of tokenizer will do
                for run in runs:
                    check_scores(program, folder, run)
        report = call(program, "report", folder / "results", "--out", folder / "report", "--no-figures", env=env)
        for family in FAMILIES:
            assert f"{family}, {TOKENS} tokens" in report, report[:2000]
    print(f"{len(FAMILIES)} families through {len(tasks)} tasks")


if __name__ == "__main__":
    main()
