#!/usr/bin/env python3
"""`score` streams: 4,000 predictions whose rows carry contexts of 100 KB (400 MB) in less than 300 MB of memory, and in at most
100 MB more than four of them take.

    python3 tests/scoring/streaming.py PREFILLBENCH [--sanitized]

--sanitized: the program holds a sanitizer's memory, too, so that only what it grows by is judged. Prints the time, which is not judged. Linux (resource's maxrss in KB); standard library only.
"""
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

ROWS, CONTEXT = 4000, 100_000


def score(folder, rows):
    """Scores that many rows -> size of the file, seconds, largest resident set of any call so far in MB."""
    file = folder / "preds.jsonl"
    context = ("The grass is green. " * (CONTEXT // 20))[:CONTEXT]
    with open(file, "w", encoding="utf-8") as out:
        for i in range(rows):
            right = i % 4 != 0
            out.write(json.dumps({"id": i, "context": context, "prediction": f"{i + 10000} is it" if right else "1",
                                  "ground_truth": [str(i + 10000)]}) + "\n")
    began = time.monotonic()
    done = subprocess.run([sys.argv[1], "score", "--task", "passkey", "--predictions", str(file), "--json"], capture_output=True, text=True)
    seconds = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["n"] == rows and result["score"] == 0.75, result
    return os.path.getsize(file), seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main():
    with tempfile.TemporaryDirectory() as name:
        _, _, few = score(pathlib.Path(name), 4)
        size, seconds, peak = score(pathlib.Path(name), ROWS)
    print(f"{ROWS} predictions, {size / 1e6:.0f} MB: {seconds:.1f} s, {peak:.0f} MB resident ({few:.0f} with four)")
    assert peak - few < 100, "memory grows with the file"
    assert "--sanitized" in sys.argv or peak < 300


if __name__ == "__main__":
    main()
