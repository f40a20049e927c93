#!/usr/bin/env python3
"""Perplexity and agreement from a text file through run, store, report and compare.

    python3 tests/tasks/teacher_forced.py PREFILLBENCH

The model is the random one of tests/tiny_model.py, whose tokens are bytes. What `run` stores is computed again from the logits
that `forward` writes, in plain Python. Standard library only.
"""
import array
import csv
import json
import math
import pathlib
import sys
import tempfile

from end_to_end import call
from tiny_model import write_tiny_model  # end_to_end has put its folder on the path

TOKENS, WINDOW = 700, {"sink": 64, "local": 64}


def logits_of(program, folder, ids, *options):
    (folder / "ids.json").write_text(json.dumps(ids))
    call(program, "forward", "--model", folder / "model", "--ids", folder / "ids.json", "--out", folder / "logits.safetensors",
         "--dtype", "float32", "--backend", "cpu-ref", *options)
    data = (folder / "logits.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    entry = json.loads(data[8:8 + size])["logits"]
    begin, end = entry["data_offsets"]
    flat = array.array("f", data[8 + size + begin:8 + size + end])
    rows, columns = entry["shape"]
    return [flat[i * columns:(i + 1) * columns] for i in range(rows)]


def log_softmax(row):
    top = max(row)
    total = math.log(sum(math.exp(x - top) for x in row)) + top
    return [x - total for x in row]


def expected(program, folder, ids):
    """{label: (nll, top1, kl)} over the positions that have a next token."""
    dense = [log_softmax(r) for r in logits_of(program, folder, ids)[:-1]]
    sparse = [log_softmax(r) for r in logits_of(program, folder, ids, "--method", "streaming", "--set",
                                                f"sink={WINDOW['sink']}", "--set", f"local={WINDOW['local']}")[:-1]]
    out = {}
    for label, rows in (("dense", dense), ("streaming", sparse)):
        pairs = list(zip(dense, rows))
        out[label] = (-sum(r[t] for r, t in zip(rows, ids[1:])) / len(rows),
                      sum(p.index(max(p)) == q.index(max(q)) for p, q in pairs) / len(pairs),
                      sum(math.exp(a) * (a - b) for p, q in pairs for a, b in zip(p, q)) / len(pairs))
    return out


def near(a, b, tolerance=2e-5):
    return abs(a - b) <= tolerance


def main():
    program = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_tiny_model(folder / "model")
        text = "".join(f"Line {i} of a text that is {i * i % 97} steps away from any other.\n" for i in range(60))
        (folder / "book.txt").write_text(text)
        (folder / "text.yaml").write_text(
            f"schema: 1\nname: text\nmodel: {folder / 'model'}\nbackend: cpu-ref\ndtype: float32\nworkloads:\n"
            + "".join(f"  - {{task: {t}, tokens: {TOKENS}, samples: 2, params: {{text: book.txt}}}}\n" for t in ("perplexity", "agreement"))
            + f"methods:\n  - name: dense\n  - name: streaming\n    params: {json.dumps(WINDOW)}\n")
        call(program, "run", folder / "text.yaml", "--results", folder / "results", cwd=folder)
        windows = []  # lines are the units: each window begins at the line behind the last one's end
        at = 0
        while len(windows) < 2:
            end = at
            while end - at <= TOKENS:
                end = text.index("\n", end) + 1
            windows.append(list(text[at:at + TOKENS].encode()))
            at = end
        wanted = [expected(program, folder, ids) for ids in windows]
        seen = 0
        for run in sorted(p.parent for p in (folder / "results").rglob("spec.json")):
            spec = json.loads((run / "spec.json").read_text())
            task, label = spec["workload"]["task"], spec["method"]["label"].split()[0]
            assert spec["workload"]["data"]["file"] == "book.txt" and len(spec["workload"]["data"]["sha256"]) == 64
            for row in map(json.loads, (run / "samples.jsonl").read_text().splitlines()):
                nll, top1, kl = wanted[int(row["sample"])][label]
                details = row["details"]
                assert row["tokens"] == TOKENS and details["n"] == TOKENS - 1, row
                assert near(details["nll"], nll), (task, label, details["nll"], nll)
                if task == "perplexity":
                    assert near(row["score"], math.exp(-nll)) and row["metric"] == "1/perplexity", row
                else:
                    assert near(row["score"], top1, 1.5 / TOKENS) and near(details["kl"], kl), (label, row["score"], top1, details["kl"], kl)
                    assert label != "dense" or (row["score"] == 1 and details["kl"] == 0), row
                seen += 1
        assert seen == 8, seen
        report = call(program, "report", folder / "results", "--out", folder / "report", "--no-figures", cwd=folder)
        for words in ("perplexity of book.txt", "same best token as dense", "KL(dense || method)", "512+"):
            assert words in report, f"the report lacks {words!r}:\n{report}"
        with open(folder / "report/positions.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 4 * 3, rows  # 2 tasks x 2 methods x (all, [0, 512), [512, 699))
        for row in rows:
            label = row["label"].split()[0]
            if row["from"] == "":
                assert near(float(row["nll"]), sum(w[label][0] for w in wanted) / 2), row
                assert near(float(row["perplexity"]), math.exp(float(row["nll"])), 1e-9 * float(row["perplexity"])), row
        compared = call(program, "compare", folder / "results", folder / "results", cwd=folder)
        assert "SAME" in compared, compared
        # what makes no sense is refused before anything is measured
        bad = (folder / "text.yaml").read_text().replace("samples: 2", "samples: 2, template: chat")
        (folder / "bad.yaml").write_text(bad)
        try:
            call(program, "run", folder / "bad.yaml", "--results", folder / "results", cwd=folder)
            raise SystemExit("'template: chat' was taken")
        except AssertionError as e:
            assert "template: chat" in str(e) and "exit 2" in str(e), e
    print("perplexity and agreement from text to report")


if __name__ == "__main__":
    main()
