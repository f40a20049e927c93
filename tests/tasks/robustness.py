#!/usr/bin/env python3
"""What happens to samples and predictions that are not as they should be, as docs/tasks-and-scoring.md says it.

    python3 tests/tasks/robustness.py PREFILLBENCH

The model is the random one of tests/tiny_model.py (context 4096, tokens are bytes). Standard library only.
"""
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

from end_to_end import call
from tiny_model import write_tiny_model  # end_to_end has put its folder on the path

ROWS = [  # of passkey.jsonl: the line; what becomes of it
    (json.dumps({"id": 1, "context": "a b c", "input": "What?", "answer": ["71432"]}), "ok"),
    (json.dumps({"id": 1, "context": "d e f", "input": "What?", "answer": ["00001"]}), "ok"),  # an id that was there before
    ('{"id": 2, "context": "\udcff", "input": "What?", "answer": ["1"]}', "failed"),              # not UTF-8
    ('{"id": 3, "context": ', "failed"),                                                          # not JSON
    (json.dumps({"id": 4, "context": "g h i", "input": "What?", "answer": []}), "no label"),
    ('{"id": 6, "context": "k l m", "answer": ["1"]}', "failed"),                                 # no input
    (json.dumps({"id": 5, "context": "j" * 6000, "input": "What?", "answer": ["1"]}), "unsupported"),  # over the context
]


def run(program, folder, name, workloads, expect):
    (folder / f"{name}.yaml").write_text(f"schema: 1\nname: {name}\nmodel: {folder / 'model'}\nbackend: cpu-ref\ndtype: float32\n"
                                         f"workloads:\n{workloads}methods:\n  - name: dense\n")
    env = {**os.environ, "PREFILLBENCH_HOME": str(folder / "home"), "PREFILLBENCH_INFINITEBENCH": str(folder / "data")}
    done = subprocess.run([program, "run", folder / f"{name}.yaml", "--results", folder / "results"], capture_output=True, text=True, env=env,
                          cwd=folder)
    assert done.returncode == expect, f"exit {done.returncode}, not {expect}:\n{done.stderr}"
    records = {}
    for log in (folder / "results" / name).rglob("samples.jsonl"):
        task = json.loads((log.parent / "spec.json").read_text())["workload"]["task"]
        for line in log.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            records[task, row["sample"]] = row
    return records, done.stderr


def samples(program, folder):
    (folder / "data").mkdir()
    (folder / "data/passkey.jsonl").write_text("\n".join(line for line, _ in ROWS) + "\n", encoding="utf-8", errors="surrogateescape")
    limit = "tokens: 8000, samples: 7, params: {max_new_tokens: 4}"
    records, said = run(program, folder, "rows", f"  - {{task: infinitebench/passkey, {limit}}}\n", expect=1)
    got = [records["infinitebench/passkey", str(i)] for i in range(len(ROWS))]
    for i, ((_, want), row) in enumerate(zip(ROWS, got)):
        if want == "no label":
            assert row["status"] == "ok" and row["score"] == 0 and row["score_error"], row
        else:
            assert row["status"] == want, f"row {i}: {row}"
    assert "passkey.jsonl:3: not UTF-8 at byte 22" in got[2]["why"], got[2]
    assert "passkey.jsonl:4: not JSON" in got[3]["why"], got[3]
    assert "passkey.jsonl:6: the row needs a string 'input'" in got[5]["why"], got[5]
    assert "the model's context ends at 4096" in got[6]["why"], got[6]
    assert "3 samples failed" in said, said
    report = call(program, "report", folder / "results/rows", "--out", folder / "report", "--no-figures", cwd=folder)
    for words in ("1 sample unsupported", "passkey.jsonl:3", "official scorer would raise"):
        assert words in report, f"the report lacks {words!r}:\n{report}"
    # the next run tries again what failed, and nothing else
    run(program, folder, "rows", f"  - {{task: infinitebench/passkey, {limit}}}\n", expect=1)
    tried = [json.loads(line)["sample"] for log in (folder / "results/rows").rglob("samples.jsonl") for line in log.read_text(encoding="utf-8").splitlines()]
    assert [tried.count(str(i)) for i in range(len(ROWS))] == [2 if want == "failed" else 1 for _, want in ROWS], tried


def missing_data(program, folder):
    workloads = ("  - {task: passkey, tokens: 600, samples: 1}\n  - {task: ruler/qa_1, tokens: 600, samples: 1}\n"
                 "  - {task: ruler/niah_single_2, tokens: 600, samples: 1}\n")
    records, said = run(program, folder, "missing", workloads, expect=0)
    assert list(records) == [("passkey", "0")], list(records)
    assert "skipped: ruler/qa_1@600: " in said and "SQuAD" in said and "skipped: ruler/niah_single_2@600: " in said and "fetch_prose.py" in said, said
    _, said = run(program, folder, "nothing", "  - {task: ruler/qa_1, tokens: 600, samples: 1}\n", expect=2)
    assert "SQuAD" in said, said


def predictions(program, folder):
    dice = random.Random(1)
    rows = [{"id": i % 7, "prediction": dice.choice(["", "71432", "the key is 5", "\ud800", "12345."]), "ground_truth": ["71432"]} for i in range(40)]
    file = folder / "predictions.jsonl"

    def score(order):
        file.write_text("".join(json.dumps(rows[i]) + "\n" for i in order))
        done = subprocess.run([program, "score", "--task", "passkey", "--predictions", file, "--per-example", "--json"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stderr

    straight, said = score(range(40))
    order = list(range(40))
    dice.shuffle(order)
    shuffled, _ = score(order)
    assert straight["score"] == shuffled["score"] == sum(r["prediction"] == "71432" for r in rows) / 40, straight
    assert shuffled["per_example"] == [straight["per_example"][i] for i in order]
    assert said.count("already; both rows are scored") == 33, said
    assert straight["n"] == 40 and not straight["errors"]


def main():
    program = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_tiny_model(folder / "model")
        samples(program, folder)
        missing_data(program, folder)
        predictions(program, folder)
    print("odd samples and predictions: as stated")


if __name__ == "__main__":
    main()
