#!/usr/bin/env python3
"""Draws what prefillbench measured. `prefillbench report` calls it; it can be called by hand too:

    draw.py report pareto.json OUT     figures (PNG and SVG) and report.html into the folder OUT

Needs matplotlib for the figures and plotly (for the plotly.js it carries) for the page; says in one line what is missing.
"""
import argparse
import json
import sys
from pathlib import Path

SCHEMA = 1


def load(path):
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        sys.exit(f"draw.py: {path}: {e}")
    if data.get("schema", 0) > SCHEMA:
        sys.exit(f"draw.py: {path}: schema {data['schema']} is newer than this script reads ({SCHEMA})")
    return data


def draw_report(args):
    data = load(args.json)
    args.out.mkdir(parents=True, exist_ok=True)
    written, missing = [], []
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        missing.append("matplotlib is not installed, so there are no PNG and SVG figures (pip install matplotlib)")
    else:
        from drawing import lines, pareto, positions

        written += pareto.draw_all(data, args.out)
        written += lines.draw_all(data, args.out)
        written += positions.draw_all(data, args.out)
    from drawing import page

    try:
        written.append(page.write(data, args.out))
    except ImportError:
        missing.append("plotly is not installed, so there is no report.html (pip install plotly)")
    if written:
        names = [p.name for p in written if p.suffix != ".svg"]
        print(f"wrote to {args.out}: {', '.join(names)}" + (" (PNG with an SVG each)" if len(names) > 1 else ""), file=sys.stderr)
    for line in missing:
        print(f"draw.py: note: {line}", file=sys.stderr)
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    report = commands.add_parser("report", help="Pareto figures, latency, stages, positions and report.html from pareto.json")
    report.add_argument("json", type=Path)
    report.add_argument("out", type=Path)
    report.set_defaults(run=draw_report)
    args = parser.parse_args()
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
