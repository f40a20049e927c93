#!/usr/bin/env python3
"""Draws what scripts/device_bench.sh measured: the block-sparse kernel's useful rate against density, and whole operators
against the fastest dense kernel of the same run, by length.

  scripts/draw_kernels.py attention.jsonl baseline.json operators.jsonl OUT.png

Rates count the pairs of the selected tiles, diagonal tiles whole; bars are least and greatest of a case's runs. An operator's
time is the whole of it: estimate, selection, index and attention of one layer. Needs matplotlib.
"""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from break_even import fastest_dense, read  # noqa: E402
from drawing.style import BOUNDS, MARKERS, PALETTE, plt, tokens_text  # noqa: E402

# One setting a method, and what the figure calls it.
OPERATORS = {"trishape": "tri-shape", "minference 1000+1024": "MInference 1000+1024", "minference 1000+6096": "MInference 1000+6096",
             "flexprefill 0.9": "FlexPrefill 0.9", "anchor 12": "AnchorAttention 12", "xattention 16": "XAttention 16",
             "flashprefill 0.12": "FlashPrefill 0.12", "flashprefill2": "FlashPrefill V2", "unisparse": "UniSparse", "prism": "Prism",
             "sparge 0.5": "SpargeAttn 0.5", "random 0.1": "random 0.1"}


def rates(ax, cases, baseline):
    for i, n in enumerate(sorted({c["n"] for c in cases})):
        rows = sorted((c for c in cases if c["n"] == n and c["dim"] == 128 and c["q_tile"] == c["k_tile"] == 128 and c["name"] in ("dense", "group")),
                      key=lambda c: c["density"])
        x, y = [c["density"] for c in rows], [c["tflops"] for c in rows]
        bars = [[c["tflops"] * (1 - c["ms"] / c["ms_max"]) for c in rows], [c["tflops"] * (c["ms"] / c["ms_min"] - 1) for c in rows]]
        ax.errorbar(x, y, yerr=bars, color=PALETTE[i], marker=MARKERS[i], markersize=5, linewidth=1.3, elinewidth=0.8,
                    label=f"{tokens_text(n)} tokens")
        cudnn = [b["TFLOP/s"] for b in baseline if b["name"].startswith(f"dense/cudnn/{n}/")]
        if cudnn:
            ax.plot([1.0], cudnn[:1], color=PALETTE[i], marker=MARKERS[i], markersize=8, fillstyle="none", linestyle="none")
    ax.set_xscale("log")
    ax.set_xticks([0.03, 0.05, 0.1, 0.2, 0.5, 1], ["0.03", "0.05", "0.1", "0.2", "0.5", "dense"])
    ax.minorticks_off()
    ax.set_ylim(0, None)
    ax.set_xlabel("density")
    ax.set_ylabel("useful TFLOP/s")
    ax.set_title("Block-sparse kernel, 128x128 tiles (hollow: cuDNN, dense)", loc="left")
    ax.legend(frameon=False, loc="lower right")


def operators(ax, rows, lengths):
    dense = fastest_dense(rows, lengths)
    ends = []
    for i, (label, name) in enumerate((k, v) for k, v in OPERATORS.items() if k in rows):
        colour, marker = BOUNDS["random"] if label.startswith("random") else (PALETTE[i % 8], MARKERS[(i + i // 8) % 8])
        x = [n for n in lengths if n in rows[label]]
        y = [dense[n] / rows[label][n]["ms"] for n in x]
        ax.plot(x, y, color=colour, marker=marker, markersize=4, linewidth=1.2)
        ends.append((y[-1], f"{name} ({rows[label][x[-1]]['density']:.2f})", colour))
    ax.axhline(1, color="#000000", linewidth=1)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    ax.set_xticks(lengths, [tokens_text(n) for n in lengths])
    ticks = [0.25, 0.5, 1, 2, 4, 8, 16]
    ax.set_yticks(ticks, [f"{t:g}x" for t in ticks])
    ax.minorticks_off()
    ax.set_xlabel("prompt length (tokens)")
    ax.set_title("Whole operators: times faster than the fastest dense kernel", loc="left")
    # names at the right, moved apart where lines end close together
    low, high = ax.get_ylim()
    place, least = None, (high / low) ** (1 / 30)
    for value, text, colour in sorted(ends):
        place = value if place is None else max(value, place * least)
        ax.annotate(text, xy=(lengths[-1], value), xytext=(lengths[-1] * 1.18, place), fontsize=7.5, color=colour, va="center",
                    annotation_clip=False, arrowprops=dict(arrowstyle="-", color=colour, linewidth=0.4, shrinkA=0, shrinkB=2, relpos=(0, 0.5)))


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    attention, baseline, whole, out = map(pathlib.Path, sys.argv[1:])
    cases = [json.loads(line) for line in attention.read_text().splitlines()]
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.2), width_ratios=[1, 1.15])
    rates(axes[0], cases, json.loads(baseline.read_text())["benchmarks"])
    operators(axes[1], *read(whole))
    figure.tight_layout()
    figure.savefig(out, bbox_inches="tight")


if __name__ == "__main__":
    main()
