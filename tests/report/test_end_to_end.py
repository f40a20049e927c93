#!/usr/bin/env python3
"""`report` and `compare` as a user runs them, on a synthetic results folder.

    test_end_to_end.py PREFILLBENCH
"""
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
from html.parser import HTMLParser
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAM = None


def run(*arguments, **environment):
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, env={**os.environ, **environment})


def have(module):
    python = os.environ.get("PREFILLBENCH_PYTHON", sys.executable)
    return subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode == 0


class Outside(HTMLParser):
    """Collects everything in a page that would be fetched from elsewhere."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("src", "href", "srcset", "data", "action") and value and not value.startswith(("#", "data:")):
                self.found.append((tag, name, value))


class ReportTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.results = Path(cls.folder.name) / "results"
        subprocess.run([sys.executable, HERE / "make_results.py", cls.results, "--samples", "6", "--tokens", "2048,8192",
                        "--tasks", "passkey,kv_retrieval", "--broken"], check=True)
        cls.out = Path(cls.folder.name) / "out"
        cls.report = run("report", cls.results, "--out", cls.out, PREFILLBENCH_PYTHON=os.environ.get("PREFILLBENCH_PYTHON", sys.executable))

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_table_fits_and_names_what_is_missing(self):
        self.assertEqual(self.report.returncode, 0, self.report.stderr)
        text = self.report.stdout
        for line in text.splitlines():
            if not line.startswith("wrote "):
                self.assertLessEqual(len(line), 120, line)
        self.assertIn("flexprefill gamma=0.95", text)
        self.assertIn("partial (`run` continues)", text)
        self.assertIn("torn line", text)
        self.assertIn("Break-even", text)

    def test_csv_and_json_agree(self):
        rows = list(csv.DictReader((self.out / "pareto.csv").open(newline="")))
        data = json.loads((self.out / "pareto.json").read_text())
        self.assertEqual(data["schema"], 1)
        self.assertEqual(len(data["panels"]), 2)
        cells = {(int(r["tokens"]), r["task"], r["label"]): r for r in rows}
        checked = 0
        for panel in data["panels"]:
            for piece in panel["slices"]:
                for point, stats in zip(panel["points"], piece["stats"]):
                    row = cells[(panel["tokens"], piece["task"] or "all", point["label"])]
                    self.assertEqual(float(row["score"]), stats["score"]["value"])
                    self.assertEqual(row["frontier_attention"], stats["frontier"]["attention"])
                    self.assertEqual(json.loads(row["params"]), point["params"])
                    checked += 1
        self.assertEqual(checked, len(rows))

    def test_planted_effects_are_reported(self):
        data = json.loads((self.out / "pareto.json").read_text())
        panel = next(p for p in data["panels"] if p["tokens"] == 8192)
        stats = {p["label"]: s for p, s in zip(panel["points"], panel["slices"][0]["stats"])}
        self.assertEqual(stats["streaming sink=64 local=512"]["verdict"], "WORSE")
        self.assertGreater(stats["flexprefill gamma=0.95"]["speedup_attention"]["lo"], 1.5)
        # gamma 0.98 costs more than 0.95 and gains nothing beyond noise
        self.assertNotEqual(stats["random density=0.3"]["frontier"]["attention"], "on the frontier")

    def test_json_flag_prints_the_json_and_nothing_else(self):
        shown = run("report", self.results, "--out", self.out, "--json", "--no-figures")
        self.assertEqual(json.loads(shown.stdout), json.loads((self.out / "pareto.json").read_text()))

    @unittest.skipUnless(have("matplotlib"), "matplotlib is not installed")
    def test_figures_are_there(self):
        for name in ("pareto-ttft", "pareto-attention", "pareto-density", "latency-ttft", "latency-attention", "stages"):
            self.assertTrue((self.out / f"{name}.png").read_bytes().startswith(b"\x89PNG"), name)
            self.assertIn("<svg", (self.out / f"{name}.svg").read_text()[:2000], name)

    @unittest.skipUnless(have("plotly"), "plotly is not installed")
    def test_page_needs_no_network(self):
        page = (self.out / "report.html").read_text()
        outside = Outside()
        outside.feed(page)
        self.assertEqual(outside.found, [])
        styles = re.findall(r"<style>(.*?)</style>", page, re.S)
        self.assertNotIn("url(", "".join(styles))
        embedded = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S).group(1)
        self.assertEqual(json.loads(embedded), json.loads((self.out / "pareto.json").read_text()))

    def test_without_matplotlib_the_table_stays(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("matplotlib", "plotly"):  # modules that refuse to be imported
                Path(folder, name + ".py").write_text("raise ImportError('not here')\n")
            shown = run("report", self.results, "--out", Path(folder) / "out", PYTHONPATH=folder, PREFILLBENCH_PYTHON=sys.executable)
            self.assertEqual(shown.returncode, 0)
            self.assertIn("matplotlib is not installed", shown.stderr)
            self.assertTrue(Path(folder, "out", "pareto.csv").exists())

    def test_a_missing_python_is_said(self):
        with tempfile.TemporaryDirectory() as folder:
            shown = run("report", self.results, "--out", folder, PREFILLBENCH_PYTHON="/nowhere/python")
            self.assertEqual(shown.returncode, 0)
            self.assertIn("note: figures are missing", shown.stderr)
            self.assertIn("PREFILLBENCH_PYTHON", shown.stderr)

    def test_bad_folders_are_one_line_and_exit_2(self):
        for argument in (self.results / "nothing", HERE):
            shown = run("report", argument, "--no-figures")
            self.assertEqual(shown.returncode, 2)
            self.assertEqual(len(shown.stderr.strip().splitlines()), 1, shown.stderr)


class PositionsTest(unittest.TestCase):
    """Tasks that read a text: scores that differ by little, and where in the text."""

    def test_numbers_and_figures(self):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, HERE / "make_results.py", Path(folder, "r"), "--samples", "3", "--tokens", "2048",
                            "--tasks", "perplexity,agreement"], check=True)
            out = Path(folder, "out")
            shown = run("report", Path(folder, "r"), "--out", out, PREFILLBENCH_PYTHON=os.environ.get("PREFILLBENCH_PYTHON", sys.executable))
            self.assertEqual(shown.returncode, 0, shown.stderr)
            dense = re.search(r"task agreement.*?dense +3 +(\S+ \S+)", shown.stdout, re.S).group(1)
            self.assertEqual(dense, "1.00 [1.0,1.0]")  # by definition: no interval of a proportion
            self.assertRegex(shown.stdout, r"streaming local=512 +3 +0\.0\d\d \[\.0\d\d,\.0\d\d\]")
            rows = json.loads((out / "pareto.json").read_text())["positions"]
            self.assertEqual({r["method"] for r in rows}, {"dense", "flexprefill", "minference", "streaming", "random"})
            if have("matplotlib"):
                for name in ("positions-perplexity", "positions-agreement"):
                    self.assertTrue((out / f"{name}.png").read_bytes().startswith(b"\x89PNG"), name)
                    svg = (out / f"{name}.svg").read_text()
                    for words in ("0–512", "1K–2K", "streaming sink=64 local=512", "in 3 samples per point"):
                        self.assertIn(words, svg, name)
            same = run("compare", Path(folder, "r"), Path(folder, "r"))
            self.assertRegex(same.stdout, r"agreement +2048 +3 +1\.00 +1\.00|agreement +2048 +3 +1\.000 +1\.000")
            self.assertNotIn("±0.3", same.stdout)
            self.assertNotRegex(same.stdout, r"agreement .*\[-\.\d*[1-9]")  # equal runs differ by nothing


class CompareTest(unittest.TestCase):
    def test_same_and_worse(self):
        with tempfile.TemporaryDirectory() as folder:
            for name, seed in (("a", 1), ("b", 1), ("c", 2)):
                subprocess.run([sys.executable, HERE / "make_results.py", Path(folder, name), "--samples", "6", "--tokens", "4096",
                                "--tasks", "passkey", "--seed", str(seed)], check=True)
            same = run("compare", Path(folder, "a"), Path(folder, "b"), "--fail-on-worse")
            self.assertEqual(same.returncode, 0, same.stdout)
            self.assertNotIn("right -> wrong", same.stdout)
            other = json.loads(run("compare", Path(folder, "a"), Path(folder, "c"), "--json").stdout)
            self.assertTrue(other["changes"])
            for sample in Path(folder, "b").rglob("samples.jsonl"):
                records = [json.loads(x) for x in sample.read_text().splitlines()]
                for r in records:
                    r["attention_s"] = [x * 1.5 for x in r["attention_s"]]
                sample.write_text("".join(json.dumps(r) + "\n" for r in records))
            slower = run("compare", Path(folder, "a"), Path(folder, "b"), "--fail-on-worse")
            self.assertEqual(slower.returncode, 1)
            self.assertIn("WORSE", slower.stdout)


if __name__ == "__main__":
    PROGRAM = str(Path(sys.argv.pop(1)).resolve())
    unittest.main()
