#!/usr/bin/env python3
"""`score` streams: 4,000 predictions whose rows carry contexts of 100 KB (400 MB) in less than 300 MB of memory.

    python3 tests/scoring/streaming.py PREFILLBENCH

Prints the time, which is not judged. Linux (resource's maxrss in KB); standard library only.
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


def main():
    with tempfile.TemporaryDirectory() as name:
        file = pathlib.Path(name) / "preds.jsonl"
        context = ("The grass is green. " * (CONTEXT // 20))[:CONTEXT]
        with open(file, "w", encoding="utf-8") as out:
            for i in range(ROWS):
                right = i % 4 != 0
                out.write(json.dumps({"id": i, "context": context, "prediction": f"{i + 10000} is it" if right else "1",
                                      "ground_truth": [str(i + 10000)]}) + "\n")
        size = os.path.getsize(file)
        began = time.monotonic()
        done = subprocess.run([sys.argv[1], "score", "--task", "passkey", "--predictions", str(file), "--json"], capture_output=True, text=True)
        seconds = time.monotonic() - began
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert result["n"] == ROWS and result["score"] == 0.75, result
        assert peak < 300, f"{peak:.0f} MB"
    print(f"{ROWS} predictions, {size / 1e6:.0f} MB: {seconds:.1f} s, {peak:.0f} MB resident")


if __name__ == "__main__":
    main()
