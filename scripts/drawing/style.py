"""Colours, markers and text sizes shared by all figures."""
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (the backend has to be chosen first)

# Okabe and Ito's palette, safe for the common kinds of colour blindness; black is kept for dense.
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#5B5EA6"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "p"]
# Bounds rather than contenders: drawn in grey.
BOUNDS = {"random": ("#8a8a8a", "x"), "oracle": ("#8a8a8a", "*")}
STAGES = {"estimate": "#56B4E9", "select": "#E69F00", "index": "#CC79A7", "attend": "#0072B2", "observe": "#009E73"}
FRONTIER = "#b8b8b8"

plt.rcParams.update({
    "font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 10, "axes.labelsize": 9, "legend.fontsize": 8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e6e6e6", "grid.linewidth": 0.6,
    "axes.axisbelow": True, "figure.dpi": 100, "savefig.dpi": 160, "svg.fonttype": "none", "svg.hashsalt": "prefillbench",
})


def families(data):
    """Colour and marker per method, the same in every figure of a report: {method: (colour, marker)}."""
    names = sorted({p["method"] for panel in data["panels"] for p in panel["points"] if not p["baseline"]})
    looks = {"dense": ("#000000", "*")}
    contenders = [n for n in names if n not in BOUNDS]
    for i, name in enumerate(contenders):
        # After one round of colours the markers move on, so that no two methods look the same.
        looks[name] = (PALETTE[i % len(PALETTE)], MARKERS[(i + i // len(PALETTE)) % len(MARKERS)])
    for name in names:
        if name in BOUNDS:
            looks[name] = BOUNDS[name]
    return looks


def tokens_text(n):
    return f"{n // 1024}K" if n >= 1024 and n % 1024 == 0 else f"{n:,}"


def groups(data):
    """Panels of one model on one machine, by length: [(file suffix, title, [panel])]. One group needs no suffix."""
    found = {}
    for panel in data["panels"]:
        key = (panel["model"], panel["model_sha256"], panel["hardware"], panel["dtype"], panel["threads"])
        found.setdefault(key, []).append(panel)
    out = []
    for i, (key, panels) in enumerate(sorted(found.items())):
        panels.sort(key=lambda p: p["tokens"])
        machine = panels[0]["hardware_name"]
        title = f"{key[0]} · {machine}, {key[3]}"
        out.append(("" if len(found) == 1 else f"-{i + 1}", title, panels))
    return out


def save(figure, out, name):
    """PNG and SVG of one figure; returns their paths."""
    paths = [out / f"{name}.png", out / f"{name}.svg"]
    for path in paths:
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)
    return paths


def sample_range(panels, slice_index=0):
    """'10' or '6-10': samples per point."""
    counts = [s["n"] for panel in panels for s in panel["slices"][slice_index]["stats"] if s["n"]]
    if not counts:
        return "0"
    return str(min(counts)) if min(counts) == max(counts) else f"{min(counts)}-{max(counts)}"
