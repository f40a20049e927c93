#!/usr/bin/env python3
"""Every shipped ablation in its quick form on the real model, with shorter prompts: each setting runs and is scored.

    python3 tests/app/ablations.py PREFILLBENCH [TOKENS] [NAME...]

TOKENS (default 384) takes the place of the 4,096 of `quick:`, so that all of them take minutes on two cores; whether a setting is any good
shows at 4K only. Skips where the model is not fetched. Standard library only.
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = "smollm2-135m-instruct-128k"
SKIP = 77


def quick_form(file, tokens):
    """The experiment with `quick:` prompts of `tokens`, of its first workload's task alone."""
    text, changed = re.subn(r"(?m)^quick: \{tokens: \d+", f"quick: {{tokens: {tokens}", file.read_text(encoding="utf-8"))
    assert changed == 1, f"{file.name}: no line 'quick: {{tokens: ...'"
    workloads = re.findall(r"(?m)^  - \{task: .*\n", text)
    assert workloads, f"{file.name}: no workload in one line"
    for other in workloads[1:]:
        text = text.replace(other, "")
    return text


def main():
    program, tokens, names = sys.argv[1], int((sys.argv[2:] or ["384"])[0]), sys.argv[3:]
    home = pathlib.Path(os.environ.get("PREFILLBENCH_HOME") or pathlib.Path.home() / ".cache/prefillbench")
    if not (home / MODEL).is_dir():
        print(f"skipped: {MODEL} is not fetched (scripts/fetch_model.py {MODEL})")
        return SKIP
    files = sorted((ROOT / "experiments").glob("ablate-*.yaml"))
    files = [f for f in files if not names or f.stem.removeprefix("ablate-") in names]
    assert files, f"no experiments/ablate-*.yaml of {names}"
    with tempfile.TemporaryDirectory() as temp:
        folder = pathlib.Path(temp)
        (folder / "models").symlink_to(ROOT / "experiments/models")
        for file in files:
            copy = folder / file.name
            copy.write_text(quick_form(file, tokens), encoding="utf-8")
            begin = time.monotonic()
            done = subprocess.run([program, "run", copy, "--quick", "--quiet", "--results", folder / "results"], capture_output=True, text=True)
            assert done.returncode == 0, f"{file.name}: exit {done.returncode}\n{done.stderr[-2000:]}"
            runs = sorted((folder / "results" / f"{file.stem}-quick").glob("*/spec.json"))
            assert len(runs) >= 6, f"{file.name}: {len(runs)} runs"
            for spec in runs:
                label = json.loads(spec.read_text())["method"]["label"]
                rows = [json.loads(line) for line in (spec.parent / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
                assert len(rows) == 1 and rows[0]["status"] == "ok", f"{file.name}: {label}: {[r.get('why') for r in rows] or 'no row'}"
                assert 0 < rows[0]["density"] <= 1 and rows[0]["score"] is not None, f"{file.name}: {label}: {rows[0]}"
            print(f"{file.stem}: {len(runs)} settings, {time.monotonic() - begin:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
