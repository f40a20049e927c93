"""Latency against length with break-even, and where the attention time goes."""
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from . import style

TIMES = {"ttft": ("ttft_s", "speedup_ttft", "time to first token"), "attention": ("attention_s", "speedup_attention", "attention time")}


def series_by_point(panels):
    """{key: (point, [(tokens, stats)])} over the lengths of a group."""
    out = {}
    for panel in panels:
        for point, stats in zip(panel["points"], panel["slices"][0]["stats"]):
            key = "dense" if point["baseline"] else point["label"]
            out.setdefault(key, (point, []))[1].append((panel["tokens"], stats))
    return out


def knob_shades(lines):
    """Line style per setting of a method: the strongest setting is solid."""
    styles = ["-", (0, (5, 1.5)), (0, (3, 1.2, 1, 1.2)), (0, (1, 1)), (0, (6, 2, 1, 2, 1, 2))]
    out, seen = {}, {}
    for key, (point, _) in lines.items():
        rank = seen.setdefault(point["method"], 0)
        out[key] = styles[rank % len(styles)]
        seen[point["method"]] = rank + 1
    return out


def latency_figure(panels, axis, looks, title, crossings):
    field, speedup, name = TIMES[axis]
    lines = series_by_point(panels)
    dashes = knob_shades(lines)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.5, 4.6))
    for key, (point, values) in lines.items():
        colour, marker = looks[point["method"]]
        rows = [(t, s[field]) for t, s in values if s[field]["value"] is not None]
        if not rows:
            continue
        width = 2.2 if point["baseline"] else 1.2
        line_style = "-" if point["baseline"] else dashes[key]
        left.plot([t for t, _ in rows], [e["value"] for _, e in rows], color=colour, marker=marker, markersize=7 if point["baseline"] else 4,
                  linestyle=line_style, linewidth=width, label=key)
        rows = [(t, s[speedup]) for t, s in values if s[speedup]["value"] is not None]
        if point["baseline"] or not rows:
            continue
        right.plot([t for t, _ in rows], [e["value"] for _, e in rows], color=colour, marker=marker, markersize=4, linestyle=line_style, linewidth=width)
        bands = [(t, e["lo"], e["hi"]) for t, e in rows if e["lo"] is not None]
        if len(bands) == len(rows):
            right.fill_between([b[0] for b in bands], [b[1] for b in bands], [b[2] for b in bands], color=colour, alpha=0.12, linewidth=0)
        where = crossings.get((key, axis))
        if where:
            right.plot(where, 1, marker="D", markersize=7, markerfacecolor="white", markeredgecolor=colour, markeredgewidth=1.5, zorder=5)
    right.axhline(1, color="black", linewidth=1)
    right.text(0.995, 1, "dense ", transform=right.get_yaxis_transform(), ha="right", va="bottom", fontsize=7.5)
    lengths = sorted({p["tokens"] for p in panels})
    for ax in (left, right):
        ax.set_xscale("log", base=2)
        ax.set_xticks(lengths)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: style.tokens_text(int(round(v)))))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel("prompt length (tokens)")
    left.set_yscale("log")
    left.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    left.yaxis.set_minor_formatter(NullFormatter())
    left.set_ylabel(f"{name} (s)")
    left.set_title("measured", loc="left", fontweight="bold")
    right.set_ylabel(f"speed-up in {name} over dense")
    right.set_title("paired with dense; diamond: break-even", loc="left", fontweight="bold")
    height = figure.get_size_inches()[1]
    figure.text(0.012, 1 - 0.06 / height, title, ha="left", va="top", fontsize=10.5)
    figure.tight_layout(rect=(0, 0.28 / height, 0.99, 1 - 0.25 / height))
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="upper left", bbox_to_anchor=(1.0, 0.92), frameon=False, fontsize=7.5, handlelength=3.2)
    figure.text(0.012, 0.06 / height, f"Medians over {style.sample_range(panels)} samples per point; bands: 95 % intervals of the paired ratio.",
                fontsize=7.5, color="#555555")
    return figure


def stages_figure(panels, title):
    """Stacked bars of the stages' medians, a tick at the attention time measured around them."""
    panels = [p for p in panels if any(point["stages_s"] for point in p["points"])]
    if not panels:
        return None
    rows = max(len(p["points"]) for p in panels)
    columns = min(len(panels), 3)
    panels = panels[-columns:]  # the longest prompts
    figure, axes = plt.subplots(1, columns, figsize=(max(8, 4.6 * columns + 1.5), 0.27 * rows + 1.6), squeeze=False, sharey=False)
    for column, (ax, panel) in enumerate(zip(axes[0], panels)):
        names = [p["label"] for p in panel["points"]]
        for y, (point, stats) in enumerate(zip(panel["points"], panel["slices"][0]["stats"])):
            at = 0.0
            for stage, colour in style.STAGES.items():
                seconds = point["stages_s"].get(stage, 0.0)
                ax.barh(y, seconds, left=at, color=colour, height=0.72, linewidth=0)
                at += seconds
            total = stats["attention_s"]["value"]
            if total:
                ax.plot([total, total], [y - 0.42, y + 0.42], color="black", linewidth=1.4)
        ax.set_yticks(range(len(names)), names if column == 0 or names != [p["label"] for p in panels[0]["points"]] else [""] * len(names), fontsize=8)
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.grid(axis="y", visible=False)
        ax.set_xlabel("seconds, all layers")
        ax.set_title(f"{style.tokens_text(panel['tokens'])} tokens", loc="left", fontweight="bold")
    height = figure.get_size_inches()[1]
    handles = [plt.Rectangle((0, 0), 1, 1, color=c) for c in style.STAGES.values()] + [plt.Line2D([], [], color="black", linewidth=1.4)]
    figure.text(0.012, 1 - 0.06 / height, title, ha="left", va="top", fontsize=10.5)
    figure.tight_layout(rect=(0, 0.62 / height, 1, 1 - 0.42 / height))
    figure.legend(handles, [*style.STAGES, "attention time (median)"], loc="lower left", bbox_to_anchor=(0.01, 0.26 / height),
                  ncols=6, frameon=False)
    figure.text(0.012, 0.08 / height, f"Medians over {style.sample_range(panels)} samples per point; the black tick is the attention time that the other figures show.",
                fontsize=7.5, color="#555555")
    return figure


def draw_all(data, out):
    looks = style.families(data)
    written = []
    for suffix, title, panels in style.groups(data):
        first = panels[0]
        crossings = {(b["label"], b["axis"]): b["tokens"] for b in data["break_even"]
                     if b["kind"] == "crosses" and (b["model"], b["hardware"], b["dtype"]) == (first["model"], first["hardware"], first["dtype"])}
        if len(panels) > 1:
            for axis in TIMES:
                written += style.save(latency_figure(panels, axis, looks, title, crossings), out, f"latency-{axis}{suffix}")
        figure = stages_figure(panels, f"{title}\nwhere attention time goes")
        if figure is not None:
            written += style.save(figure, out, f"stages{suffix}")
    return written
