"""Score against cost: one figure per cost axis, one subplot per length, and the same per task."""
import math

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from . import labels, style

AXES = {
    "ttft": ("ttft_s", "time to first token (s)"),
    "attention": ("attention_s", "attention time (s)"),
    "density": ("density", "density (computed share of causal pairs)"),
}
CAPTION = ("Median times, mean scores and densities with 95 % intervals. Grey line: frontier; filled: on it; half-filled: within noise of it; "
           "hollow: dominated.")
FILL = {"on the frontier": "full", "within noise of it": "left", "dominated": "none", "not compared": "none"}


def known(stats, field):
    return stats["score"]["value"] is not None and stats[field]["value"] is not None


def bars(estimate):
    """Lengths of the error bar below and above, zero without an interval."""
    if estimate["lo"] is None:
        return [[0], [0]]
    return [[max(0, estimate["value"] - estimate["lo"])], [max(0, estimate["hi"] - estimate["value"])]]


def draw_frontier(ax, rows, field, axis):
    front = sorted((s[field]["value"], s["score"]["value"]) for _, s in rows if s["frontier"][axis] == "on the frontier")
    if len(front) > 1:
        ax.plot(*zip(*front), color=style.FRONTIER, linewidth=4, alpha=0.55, solid_capstyle="round", zorder=1)


def draw_points(ax, panel, slice_, axis, looks):
    """Draws one subplot; returns the points to label as (x, y, text, colour)."""
    field = AXES[axis][0]
    rows = [(p, s) for p, s in zip(panel["points"], slice_["stats"]) if known(s, field)]
    draw_frontier(ax, rows, field, axis)
    series = {}
    for point, stats in rows:
        series.setdefault(point["series"], []).append((point["knob_value"], stats[field]["value"], stats["score"]["value"], point["method"]))
    for members in series.values():
        if len(members) > 1:
            members.sort()
            bound = members[0][3] in style.BOUNDS and axis == "density"  # against time they bound nothing
            ax.plot([m[1] for m in members], [m[2] for m in members], color=looks[members[0][3]][0], linewidth=3 if bound else 0.9,
                    alpha=0.5 if bound else 0.7, linestyle=":" if bound else "-", zorder=2)
    out = []
    for point, stats in rows:
        colour, marker = looks[point["method"]]
        x, y = stats[field], stats["score"]
        ax.errorbar(x["value"], y["value"], xerr=bars(x), yerr=bars(y), color=colour, linewidth=0.8, alpha=0.35, capsize=0, zorder=3)
        size = 11 if point["baseline"] else 6.5
        if marker == "x":
            ax.plot(x["value"], y["value"], marker=marker, markersize=size, color=colour, markeredgewidth=1.6, zorder=4)
        else:
            ax.plot(x["value"], y["value"], marker=marker, markersize=size, fillstyle=FILL[stats["frontier"][axis]], color=colour,
                    markerfacecoloralt="white", markeredgewidth=1.1, zorder=5 if point["baseline"] else 4)
        if point["method"] not in style.BOUNDS or axis != "density":  # there the label would repeat x
            out.append((x["value"], y["value"], "dense" if point["baseline"] else point["short_label"], colour))
    return out


def scale_x(ax, values):
    """Logarithmic when the spread is large; ticks that read as plain numbers."""
    if values and min(values) > 0 and max(values) / min(values) > 5:
        ax.set_xscale("log")
        narrow = max(values) / min(values) < 30
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1, 3) if max(values) / min(values) < 200 else (1,)))
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.margins(x=0.08)


def legend_handles(panels, looks):
    used = sorted({p["method"] for panel in panels for p in panel["points"] if not p["baseline"]})
    knobs = {}
    for panel in panels:
        for p in panel["points"]:
            if p["knob"]:
                knobs[p["method"]] = p["knob"]
    handles = [Line2D([], [], color="#000000", marker="*", markersize=10, linestyle="", label="dense")]
    for name in used:
        colour, marker = looks[name]
        text = f"{name} ({knobs[name]})" if name in knobs else name
        handles.append(Line2D([], [], color=colour, marker=marker, markersize=6, linewidth=0.9, label=text))
    return handles


def figure_of(panels, slice_indices, axis, looks, title, caption, texts):
    """Rows: slices (tasks); columns: lengths. Of the tasks in `texts`, whose scores differ by little, the axis shows what
    there is, else 0 to 1."""
    columns, rows = min(len(panels), 3), None
    cells = [(panel, i) for i in slice_indices for panel in panels]
    rows = math.ceil(len(cells) / columns) if len(slice_indices) == 1 else len(slice_indices)
    if len(slice_indices) > 1:
        columns = len(panels)
    width = max(7.5, min(4.7 * columns, 15))
    figure, grid = plt.subplots(rows, columns, figsize=(width, 3.5 * rows + 0.9), squeeze=False, sharey="row")
    flat = [ax for row in grid for ax in row]
    pending = []
    for ax, (panel, i) in zip(flat, cells):
        slice_ = panel["slices"][i]
        points = draw_points(ax, panel, slice_, axis, looks)
        scale_x(ax, [p[0] for p in points])
        what = f"{style.tokens_text(panel['tokens'])} tokens"
        if slice_["task"]:
            what = f"{slice_['task']}, {what}"
        ax.set_title(what, loc="left", fontweight="bold")
        ax.set_xlabel(AXES[axis][1])
        if not set([slice_["task"]] if slice_["task"] else panel["tasks"]) <= texts:
            ax.set_ylim(-0.05, 1.12)
            ax.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
        pending.append((ax, points))
    for ax in flat[len(cells):]:
        ax.set_visible(False)
    for row in grid:
        row[0].set_ylabel("score")
    handles = legend_handles(panels, looks)
    per_row = max(2, int(width / 2.3))
    legend_rows = math.ceil(len(handles) / per_row)
    height = figure.get_size_inches()[1]
    figure.text(0.012, 1 - 0.06 / height, title, ha="left", va="top", fontsize=10.5)
    bottom = (0.55 + 0.2 * legend_rows) / height
    figure.tight_layout(rect=(0, bottom, 1, 1 - 0.34 / height))
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.01, 0.33 / height), ncols=per_row, frameon=False)
    figure.text(0.012, 0.08 / height, caption, fontsize=7.5, color="#555555", va="bottom", wrap=True)
    for ax, points in pending:  # after the layout: labels are placed in pixels
        labels.place(ax, points)
    return figure


def draw_all(data, out):
    looks = style.families(data)
    texts = {row["task"] for row in data.get("positions", [])}
    written = []
    for suffix, title, panels in style.groups(data):
        tasks = panels[0]["tasks"]
        for axis in AXES:
            head = f"{title}\nmean over {', '.join(tasks)}" if len(tasks) > 1 else f"{title}\n{tasks[0]}"
            caption = f"n = {style.sample_range(panels)} samples per point. {CAPTION}"
            figure = figure_of(panels, [0], axis, looks, head, caption, texts)
            written += style.save(figure, out, f"pareto-{axis}{suffix}")
            per_task = [i for i, s in enumerate(panels[0]["slices"]) if s["task"]]
            same = all([s["task"] for s in p["slices"]] == [s["task"] for s in panels[0]["slices"]] for p in panels)
            if per_task and same and len(panels) <= 4:
                caption = f"n = {style.sample_range(panels, per_task[0])} samples per point. {CAPTION}"
                figure = figure_of(panels, per_task, axis, looks, f"{title}\nby task", caption, texts)
                written += style.save(figure, out, f"pareto-{axis}-by-task{suffix}")
    return written
