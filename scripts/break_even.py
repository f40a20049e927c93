#!/usr/bin/env python3
"""From which length on each method beats the fastest dense kernel: a Markdown table of what bench_cuda_methods wrote.

  scripts/break_even.py results/reference/h200-model/operators.jsonl

Time is the whole operator: estimate, selection, index and attention of one layer. A method breaks even at the first measured
length from which on its median stays below the fastest dense median of the same run.
"""
import json
import sys


def read(path):
    """{label: {tokens: row}} of the lines that were measured, and the lengths."""
    rows, lengths = {}, set()
    with open(path) as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                lengths.add(row["n"])
            except (ValueError, KeyError) as error:
                sys.exit(f"{path}:{number}: not a line of bench_cuda_methods ({error})")
            if "ms" in row:
                rows.setdefault(row["label"], {})[row["n"]] = row
    return rows, sorted(lengths)


def fastest_dense(rows, lengths):
    """{tokens: ms} of the fastest dense kernel."""
    return {n: min(r[n]["ms"] for label, r in rows.items() if label.startswith("dense") and n in r) for n in lengths}


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    rows, lengths = read(sys.argv[1])
    dense = fastest_dense(rows, lengths)
    print("| operator | breaks even at | " + " | ".join(f"{n // 1024}K" for n in lengths) + " |")
    print("|---" * (len(lengths) + 2) + "|")
    print("| fastest dense, ms | | " + " | ".join(f"{dense[n]:.3g}" for n in lengths) + " |")
    for label, by_length in rows.items():
        wins = [n for n in lengths if all(m in by_length and by_length[m]["ms"] < dense[m] for m in lengths if m >= n)]
        cells = [f"{dense[n] / by_length[n]['ms']:.2f}x ({by_length[n]['density']:.2f})" if n in by_length else "" for n in lengths]
        even = "" if label.startswith("dense") else f"{wins[0]:,} tokens" if wins else f"not up to {lengths[-1]:,}"
        print(f"| {label} | {even} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
