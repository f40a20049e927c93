"""Places short texts beside points so that they overlap neither each other nor the points."""
import math


def _overlap(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    return w * h if w > 0 and h > 0 else 0.0


def place(ax, points, size=7.0):
    """Labels (x, y, text, colour) in data coordinates. Greedy: crowded points first, for each the candidate position
    (eight directions, three distances) that covers least; far positions get a thin leader line."""
    figure = ax.figure
    renderer = figure.canvas.get_renderer()
    spots = [ax.transData.transform((x, y)) for x, y, _, _ in points]
    radius = 5.0 * figure.dpi / 72
    taken = [(px - radius, py - radius, px + radius, py + radius) for px, py in spots]
    frame = ax.get_window_extent(renderer)
    crowd = [sum(1 for q in spots if math.dist(p, q) < 40) for p in spots]
    for i in sorted(range(len(points)), key=lambda k: -crowd[k]):
        x, y, text, colour = points[i]
        if not text:
            continue
        probe = ax.text(0, 0, text, fontsize=size)
        extent = probe.get_window_extent(renderer)
        probe.remove()
        w, h = extent.width, extent.height * 0.85
        best = None
        for ring, distance in enumerate((1.25, 2.6, 4.4, 6.5)):
            for angle in (60, 120, 0, 180, 300, 240, 90, 270, 30, 150, 330, 210):
                dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
                cx = spots[i][0] + dx * (radius * distance + w / 2)
                cy = spots[i][1] + dy * (radius * distance + h / 2)
                box = (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)
                cost = sum(_overlap(box, t) for j, t in enumerate(taken) if j != i) / (w * h)
                outside = max(0, frame.x0 - box[0], box[2] - frame.x1) + max(0, frame.y0 - box[1], box[3] - frame.y1)
                cost += outside / 10 + 0.12 * ring
                if best is None or cost < best[0] - 1e-9:
                    best = (cost, cx, cy, box, ring)
        _, cx, cy, box, ring = best
        taken.append(box)
        tx, ty = ax.transData.inverted().transform((cx, cy))
        arrow = dict(arrowstyle="-", color=colour, linewidth=0.4, alpha=0.7, shrinkA=0, shrinkB=3) if ring else None
        ax.annotate(text, xy=(x, y), xytext=(tx, ty), fontsize=size, color=colour, ha="center", va="center", arrowprops=arrow, zorder=6)
