#!/usr/bin/env python3
"""All twelve InfiniteBench tasks from a made-up official checkout and made-up data, through import, run, score and report.

    python3 tests/tasks/end_to_end.py PREFILLBENCH

The model is a random one-layer Llama (tests/tiny_model.py); what it answers does not matter, only that
every task comes out with the prompt, label and score that the rules give. Standard library only.
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import textwrap

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from tiny_model import write_tiny_model  # noqa: E402

OPTIONS = ["alpha", "beta", "gamma", "delta"]
ROWS = {  # task: fields of a row; the label that predictions are scored against
    "passkey": ({"input": "What is it?", "answer": ["71432"]}, ["71432"]),
    "number_string": ({"input": "Which?", "answer": ["3000077442"]}, ["3000077442"]),
    "kv_retrieval": ({"input": "\nKey: \"k\"\nis: ", "answer": "v"}, "v"),
    "longbook_sum_eng": ({"input": "", "answer": ["A cat sat."]}, ["A cat sat."]),
    "longbook_choice_eng": ({"input": "Who?", "answer": ["gamma"], "options": OPTIONS}, ["gamma", "C"]),
    "longbook_qa_eng": ({"input": "Who?", "answer": ["a", "b"]}, ["a", "b"]),
    "longbook_qa_chn": ({"input": "\u8c01", "answer": ["\u6211"]}, ["\u6211"]),
    "longdialogue_qa_eng": ({"input": "", "answer": ["ACE"]}, ["ACE"]),
    "math_find": ({"input": "The largest number of the list is: ", "answer": [12]}, [12]),
    "math_calc": ({"input": "", "answer": [4, 8]}, [4, 8]),
    "code_run": ({"input": "What is func_12(-3)?", "answer": [5]}, [5]),
    "code_debug": ({"input": "", "answer": "beta", "options": OPTIONS}, ["beta", "B"]),
}


def checkout(folder):
    slots = {"math_find": "{prefix} {context} {input}", "math_calc": "{context} Values:", "code_run": "{func} {context} {func_call}"}
    four = " A. {OPTION_A} B. {OPTION_B} C. {OPTION_C} D. {OPTION_D}"
    slots.update({"longbook_choice_eng": "{context} {question}" + four, "code_debug": "{context}" + four, "longbook_sum_eng": "{context} Sum:",
                  "longdialogue_qa_eng": "{context} Name:", "longbook_qa_eng": "{context} {question}", "longbook_qa_chn": "{context} {question}"})
    (folder / "src").mkdir(parents=True)
    lines = [f"    {task!r}: {'MADE UP ' + slots.get(task, '{context} {input}')!r},  # noqa" for task in ROWS]
    (folder / "src/prompt.py").write_text("yarn_mistral_templates = {\n" + "\n".join(lines) + "\n}\n", encoding="utf-8")


def data(folder):
    folder.mkdir()
    for task, (fields, _) in ROWS.items():
        with open(folder / f"{task}.jsonl", "w", encoding="utf-8") as out:
            for i in range(2):  # the second is over the limit and loses its middle
                out.write(json.dumps({"id": 7, "context": "word " * (8 if i == 0 else 200), **fields}, ensure_ascii=False) + "\n")


def call(*args, **kw):
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True, **kw)
    assert done.returncode == 0, f"{' '.join(map(str, args))}: exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def main():
    program = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        checkout(folder / "checkout")
        data(folder / "data")
        write_tiny_model(folder / "model")
        call(sys.executable, ROOT / "scripts/import_infinitebench.py", folder / "checkout", "--out", folder / "templates.json")
        usage = re.search(r"^    workloads:\n(?:    .+\n)+", (ROOT / "scripts/import_infinitebench.py").read_text(encoding="utf-8"), re.M)
        (folder / "usage.yaml").write_text(f"schema: 1\nname: usage\nmodel: {folder / 'model'}\nmethods:\n  - name: dense\n" +
                                           textwrap.dedent(usage.group()))
        call(program, "check", folder / "usage.yaml", cwd=folder)  # what the import script says to write
        workloads = "".join(f"  - {{task: infinitebench/{t}, tokens: 300, samples: 2, params: {{templates: templates.json, max_new_tokens: 4}}}}\n" for t in ROWS)
        (folder / "all.yaml").write_text(f"schema: 1\nname: all\nmodel: {folder / 'model'}\nbackend: cpu-ref\ndtype: float32\nworkloads:\n{workloads}"
                                         "methods:\n  - name: dense\n  - name: streaming\n    params: {sink: 64, local: 64}\n")
        env = {**os.environ, "PREFILLBENCH_INFINITEBENCH": str(folder / "data")}
        call(program, "run", folder / "all.yaml", "--results", folder / "results", env=env, cwd=folder)
        runs = [p.parent for p in (folder / "results").rglob("spec.json")]
        assert len(runs) == 24, f"{len(runs)} runs of 12 tasks x 2 methods"
        for run in runs:
            spec = json.loads((run / "spec.json").read_text())
            task = spec["workload"]["task"].split("/")[1]
            assert spec["workload"]["data"]["n"] == 2 and len(spec["workload"]["data"]["sha256"]) == 64, spec["workload"]
            rows = [json.loads(line) for log in run.glob("samples*.jsonl") for line in log.read_text(encoding="utf-8").splitlines()]
            rows = [r for r in rows if "prediction" in r]
            assert len(rows) == 2, f"{task}: {rows}"
            assert [r.get("cut_from_tokens", 0) > 300 for r in rows] == [False, True], f"{task}: which prompts were cut: {rows}"
            assert all(r["profile"] == "official" for r in rows), rows
            predictions = run / "predictions.jsonl"
            with open(predictions, "w", encoding="utf-8") as out:
                for r in rows:
                    assert r["answer"] == ROWS[task][1], f"{task}: label {r['answer']}"
                    out.write(json.dumps({"id": r.get("sample", 0), "prediction": r["prediction"], "ground_truth": r["answer"]}) + "\n")
            scored = json.loads(call(program, "score", "--task", f"infinitebench/{task}", "--predictions", predictions, "--per-example", "--json"))
            assert scored["per_example"] == [r["score"] for r in rows], f"{task}: run and score differ"
            predictions.unlink()
        report = call(program, "report", folder / "results", cwd=folder)
        for task in ROWS:
            assert task in report, f"the report leaves out {task}:\n{report}"
    print("12 tasks from import to report")


if __name__ == "__main__":
    main()
