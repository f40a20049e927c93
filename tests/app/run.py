#!/usr/bin/env python3
"""`run` stopped, killed, continued, sharded: nothing is lost, nothing measured twice, nothing half-written counts.

    python3 tests/app/run.py PREFILLBENCH
"""
import json
import random
import signal
import subprocess
import time
import unittest  # noqa: F401

from program import PROGRAM, ProgramTest, main, outcome, read_runs


class Run(ProgramTest):
    def test_second_run_measures_nothing(self):
        self.ok("run", self.experiment())
        logs = {p: p.read_bytes() for p in (self.folder / "results").rglob("*") if p.is_file()}
        self.assertEqual(sum(p.name == "summary.json" for p in logs), 6)  # 3 methods x 2 lengths
        self.ok("run", self.folder / "x.yaml")
        after = {p: p.read_bytes() for p in (self.folder / "results").rglob("*") if p.is_file() and p.name != "provenance.jsonl"}
        self.assertEqual({p: b for p, b in logs.items() if p.name != "provenance.jsonl"}, after)

    def test_killed_again_and_again(self):
        file = self.experiment(samples=6)
        began = time.monotonic()
        self.ok("run", file, "--results", "whole")
        takes = time.monotonic() - began
        whole = outcome(read_runs(self.folder / "whole"))
        rng = random.Random(5)
        kills = 0
        for _ in range(60):
            child = subprocess.Popen([PROGRAM, "run", file, "--results", "killed", "--quiet"], cwd=self.folder, stderr=subprocess.PIPE)
            try:
                child.wait(timeout=rng.uniform(0.02, 0.6) * takes * (1 + kills / 10))  # later ones get further
                self.assertEqual(child.returncode, 0, child.stderr.read())
                break
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGKILL)
                child.wait()
                kills += 1
            finally:
                child.stderr.close()
        self.ok("run", file, "--results", "killed")
        self.assertGreater(kills, 0)
        self.assertEqual(outcome(read_runs(self.folder / "killed")), whole)

    def test_interrupted_by_ctrl_c_keeps_what_it_has(self):
        file = self.experiment(samples=200)
        child = subprocess.Popen([PROGRAM, "run", file], cwd=self.folder, stderr=subprocess.DEVNULL)
        deadline = time.time() + 120
        while time.time() < deadline and sum(len(p.read_bytes().splitlines()) for p in self.folder.rglob("samples.jsonl")) < 6:
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        self.assertNotEqual(child.wait(timeout=60), 0)
        before = read_runs(self.folder / "results")
        self.assertGreaterEqual(sum(map(len, before.values())), 6)
        self.assertFalse(list((self.folder / "results").rglob("summary.json")))

    def test_shards_merge_to_the_whole(self):
        file = self.experiment(samples=5)
        self.ok("run", file, "--results", "whole")
        for i in (1, 2, 3):
            self.ok("run", file, "--results", f"part{i}", "--shard", f"{i}/3")
        for out, parts, complete in (("merged", ("part1", "part2", "part3"), True), ("some", ("part1", "part2"), False)):
            merged = json.loads(self.ok("merge", *parts, "--out", out, "--json"))
            self.assertEqual(merged["out"], out)
            runs = read_runs(self.folder / out).values()
            self.assertEqual(sorted(r["settled"] for r in merged["runs"]), sorted(map(len, runs)))
            for r in merged["runs"]:
                self.assertTrue((self.folder / out / r["run"] / "spec.json").exists())
                self.assertEqual((r["samples"], r["complete"]), (5, r["settled"] == 5))
                self.assertEqual((self.folder / out / r["run"] / "summary.json").exists(), r["complete"])
            self.assertEqual(all(r["complete"] for r in merged["runs"]), complete)
        self.assertEqual(outcome(read_runs(self.folder / "merged")), outcome(read_runs(self.folder / "whole")))
        self.assertEqual(len(list((self.folder / "merged").rglob("summary.json"))), 6)
        parts = [read_runs(self.folder / f"part{i}") for i in (1, 2, 3)]
        for key in parts[0]:
            taken = [s for part in parts for s in part[key]]
            self.assertEqual(len(taken), len(set(taken)), "two shards took one sample")

    def test_shards_share_a_folder(self):
        file = self.experiment(samples=5)
        children = [subprocess.Popen([PROGRAM, "run", file, "--quiet", "--shard", f"{i}/2"], cwd=self.folder) for i in (1, 2)]
        self.assertEqual([c.wait(timeout=300) for c in children], [0, 0])
        self.assertTrue(all(len(samples) == 5 for samples in read_runs(self.folder / "results").values()))

    def test_budget_leaves_all_methods_with_the_same_samples(self):
        self.ok("run", self.experiment(samples=2000), "--budget", "1")
        runs = read_runs(self.folder / "results")
        counts = {key: set(samples) for key, samples in runs.items()}
        for tokens in (300, 400):
            of_length = [c for (label, t), c in counts.items() if t == tokens]
            self.assertEqual(len(of_length), 3)
            self.assertTrue(all(c == of_length[0] for c in of_length))
            self.assertTrue(0 < len(of_length[0]) < 2000)

    def test_every_record_is_paired_with_dense_of_its_round(self):
        self.ok("run", self.experiment())
        runs = read_runs(self.folder / "results")
        for (label, tokens), samples in runs.items():
            for name, record in samples.items():
                dense = runs["dense", tokens][name]
                if label == "dense":
                    self.assertNotIn("dense", record)
                else:
                    self.assertEqual(record["dense"]["ttft_s"], dense["ttft_s"])
                self.assertLessEqual(record["attention_s"][0], record["ttft_s"][0])
                self.assertAlmostEqual(sum(record["stages_s"].values()), record["attention_s"][0], places=6)

    def test_only_takes_dense_along(self):
        self.ok("run", self.experiment(), "--only", "rand*")
        self.assertEqual({label for label, _ in read_runs(self.folder / "results")}, {"dense", "random density=0.5"})

    def test_prompt_past_the_context_is_said_and_kept_out(self):
        done = self.call("run", self.experiment(samples=1, tokens=(300, 4096)))
        self.assertEqual(done.returncode, 0, done.stderr)
        record = next(iter(read_runs(self.folder / "results")["dense", 4096].values()))
        self.assertEqual(record["status"], "unsupported")
        self.assertIn("4096", record["why"])

    def test_nothing_that_fits_the_context_is_no_success(self):
        file = self.experiment(samples=2, tokens=(4092, 8192))
        places = {4092: "x.yaml:6:30", 8192: "x.yaml:6:36"}
        self.assertIn(places[8192], self.call("check", file).stderr)
        for tokens, place in places.items():
            self.assertIn(f"{place}: note: passkey@{tokens}", self.call("plan", file).stderr)
        for _ in range(2):  # a second run has nothing to do and no better news
            done = self.call("run", file, "--quiet")
            self.assertEqual(done.returncode, 1, done.stderr)
            lines = [x for x in done.stderr.splitlines() if x.startswith("unsupported: ")]
            self.assertEqual(len(lines), 6, done.stderr)  # 3 methods x 2 lengths
            self.assertTrue(all("none of 2 samples could be measured" in x and "context ends at 4096" in x for x in lines), lines)

    def test_spelling_of_numbers_finds_the_same_runs(self):
        self.ok("run", self.experiment())
        file = self.folder / "x.yaml"
        file.write_text(file.read_text().replace("density: 0.5", "density: 5.0e-1"))
        plan = json.loads(self.ok("plan", file, "--json"))
        self.assertTrue(all(r["done"] == r["samples"] for r in plan["runs"]), plan)

    def test_a_file_is_the_same_wherever_it_lies_and_however_it_is_spelled(self):
        def write(folder, table, prose):
            (self.folder / folder).mkdir(exist_ok=True)
            file = self.experiment(samples=1, tokens=(300,), name="paths",
                                   methods=f"  - {{name: xattention, label: x, params: {{thresholds: {table}}}}}\n")
            text = file.read_text().replace("seed: 3", f"seed: 3, params: {{haystack: prose, haystack_file: {prose}}}")
            file.unlink()
            (self.folder / folder / "paths.yaml").write_text(text)
            return f"{folder}/paths.yaml"

        def ids(file):
            return {r["method"]: r["id"] for r in json.loads(self.ok("plan", file, "--json"))["runs"]}

        def fill(folder, threshold=0.9):
            (self.folder / folder).mkdir(exist_ok=True)
            (self.folder / folder / "table.json").write_text(f"[[{threshold}, 0.8]]")
            (self.folder / folder / "book.txt").write_text("One sentence stands here. " * 400)
        fill("a")
        first = ids(write("a", "table.json", "book.txt"))
        self.assertEqual(set(first), {"dense", "streaming sink=4 local=40", "random density=0.5", "x"})
        self.assertEqual(first, ids(write("a", "./table.json", "../a/book.txt")))
        self.assertEqual(first, ids(write("a", self.folder / "a/table.json", self.folder / "a/book.txt")))
        self.assertEqual(first, ids(write("elsewhere", "../a/table.json", "../a/book.txt")))
        fill("b")
        self.assertEqual(first, ids(write("b", "table.json", "book.txt")))
        self.ok("run", "b/paths.yaml")  # and what is recorded under the id is what was planned
        self.assertEqual({p.parent.name for p in self.folder.rglob("spec.json")}, set(first.values()))
        fill("b", threshold=0.7)  # another table under the same name is another run
        other = ids("b/paths.yaml")
        self.assertNotEqual(other.pop("x"), first.pop("x"))
        self.assertEqual(other, first)


if __name__ == "__main__":
    main()
