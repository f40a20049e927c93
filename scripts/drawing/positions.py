"""Perplexity, and agreement with dense, by the number of tokens read: rows of the figure are prompt lengths."""
import math

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from . import lines, style

# task: title, value of a bucket beside dense's (None: nothing to draw), logarithmic
MEASURES = {
    "perplexity": [("perplexity", lambda b, d: math.exp(b["nll"]), False),
                   ("perplexity over dense's, %", lambda b, d: 100 * math.expm1(b["nll"] - d["nll"]) if d else None, False)],
    "agreement": [("same best token as dense, %", lambda b, d: None if b["top1"] is None else 100 * b["top1"], False),
                  ("KL(dense ‖ method), nats", lambda b, d: b["kl"] or None, True)],
}


def groups(rows):
    """{(model, dtype, task, text): {tokens: [row]}}"""
    out = {}
    for row in rows:
        if row["task"] in MEASURES:
            out.setdefault((row["model"], row["dtype"], row["task"], row["text"]), {}).setdefault(row["tokens"], []).append(row)
    return out


def dashes(rows):
    """Line style per label, as in the figures by length."""
    return lines.knob_shades({r["label"]: (r, None) for r in rows})


def draw_measure(ax, rows, measure, looks, styles):
    title, value, logarithmic = measure
    dense = next((r for r in rows if r["baseline"]), None)
    for row in rows:
        base = dense["buckets"] if dense else [None] * len(row["buckets"])
        points = [(i, value(b, d)) for i, (b, d) in enumerate(zip(row["buckets"], base))]
        points = [p for p in points if p[1] is not None]
        colour, marker = looks[row["method"]]
        ax.plot([p[0] for p in points], [p[1] for p in points], color=colour, marker=marker, linewidth=2.0 if row["baseline"] else 1.2,
                markersize=8 if row["baseline"] else 4.5, linestyle="-" if row["baseline"] else styles[row["label"]], label=row["label"])
    if logarithmic:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    longest = max(rows, key=lambda r: len(r["buckets"]))["buckets"]
    edges = [*(b["from"] for b in longest), longest[-1]["to"] + 1]
    ax.set_xticks(range(len(longest)), [f"{style.tokens_text(a)}–{style.tokens_text(b)}" for a, b in zip(edges, edges[1:])])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_title(title, loc="left", fontweight="bold")
    ax.set_xlabel(f"tokens read, prompts of {style.tokens_text(rows[0]['tokens'])}")


def figure_of(by_length, task, looks, title):
    measures = MEASURES[task]
    lengths = sorted(by_length)
    figure, grid = plt.subplots(len(lengths), 2, figsize=(11.5, 3.3 * len(lengths) + 0.8), squeeze=False)
    styles = dashes([r for t in lengths for r in by_length[t]])
    for row, tokens in zip(grid, lengths):
        for ax, measure in zip(row, measures):
            draw_measure(ax, by_length[tokens], measure, looks, styles)
    height = figure.get_size_inches()[1]
    figure.text(0.012, 1 - 0.06 / height, title, ha="left", va="top", fontsize=10.5)
    figure.tight_layout(rect=(0, 0.28 / height, 0.99, 1 - 0.42 / height))
    named = {}
    for ax in grid[:, 0]:
        named.update({name: handle for handle, name in zip(*ax.get_legend_handles_labels())})
    figure.legend(named.values(), named.keys(), loc="upper left", bbox_to_anchor=(1.0, 0.92), frameon=False, fontsize=7.5, handlelength=3.2)
    counts = sorted({r["samples"] for t in lengths for r in by_length[t]})
    few = str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"
    figure.text(0.012, 0.06 / height, f"Means over all positions of a range in {few} sample{'' if few == '1' else 's'} per point.",
                fontsize=7.5, color="#555555")
    return figure


def draw_all(data, out):
    looks = style.families(data)
    written = []
    found = groups(data.get("positions", []))
    alone = {task: sum(key[2] == task for key in found) == 1 for task in MEASURES}
    for i, (key, by_length) in enumerate(sorted(found.items())):
        model, dtype, task, text = key
        title = f"{model} · {dtype}\n{task} of {text or 'its text'} by position"
        name = f"positions-{task}" + ("" if alone[task] else f"-{i + 1}")
        written += style.save(figure_of(by_length, task, looks, title), out, name)
    return written
