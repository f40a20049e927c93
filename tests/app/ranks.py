#!/usr/bin/env python3
"""`--tensor-parallel`: processes that share a model give one process's results, and end together when one of them fails.

    python3 tests/app/ranks.py PREFILLBENCH
"""
import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import time
import unittest  # noqa: F401

from program import PROGRAM, ProgramTest, main, outcome, read_runs

FORMATS = {"F32": "f", "I32": "i"}


def tensors(path):
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    head = json.loads(data[8:8 + size])
    head.pop("__metadata__", None)
    out = {}
    for name, e in head.items():
        a, b = e["data_offsets"]
        raw = data[8 + size + a:8 + size + b]
        out[name] = struct.unpack(f"<{len(raw) // 4}{FORMATS[e['dtype']]}", raw)
    return out


def children(pid):
    return [int(p) for task in pathlib.Path(f"/proc/{pid}/task").iterdir() for p in (task / "children").read_text().split()]


def meeting_folders():
    return set(pathlib.Path("/dev/shm").glob("prefillbench-*")) if pathlib.Path("/dev/shm").exists() else set()


class Ranks(ProgramTest):
    def setUp(self):
        super().setUp()
        # 9 query heads in 3 groups, two layers, weights drawn at random
        model = self.folder / "shared"
        shutil.copytree(self.folder / "model", model)
        (model / "model.safetensors").unlink()
        (model / "config.json").write_text(json.dumps({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 144, "intermediate_size": 160, "num_hidden_layers": 2,
            "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "vocab_size": 257, "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": True, "eos_token_id": 256,
            "prefillbench": {"weights": "random", "seed": 2}}))
        self.before = meeting_folders()

    def experiment(self, **kw):
        path = super().experiment(**kw)
        path.write_text(path.read_text().replace(str(self.folder / "model"), str(self.folder / "shared")) + "dtype: float32\n")
        return path

    def forward(self, ranks):
        out = self.folder / f"out{ranks}.safetensors"
        (self.folder / "ids.json").write_text(json.dumps([(7 * i * i + i) % 256 for i in range(180)]))
        self.ok("forward", "--model", "shared", "--ids", "ids.json", "--out", out, "--dtype", "float32", "--backend", "cpu", "--greedy", "12",
                *(["--tensor-parallel", ranks] if ranks > 1 else []))
        return tensors(out)

    def test_forward_is_that_of_one_process(self):
        one = self.forward(1)
        for ranks in (2, 3):
            shared = self.forward(ranks)
            self.assertEqual(shared["greedy"], one["greedy"])
            worst = max(abs(a - b) for a, b in zip(shared["logits"], one["logits"]))
            self.assertLess(worst, 1e-4 * max(map(abs, one["logits"])))
        self.assertEqual(meeting_folders(), self.before)

    def test_every_method_gives_the_same_answers(self):
        names = [m["name"] for m in json.loads(self.ok("list", "methods", "--json"))]
        methods = "".join(f"  - name: {n}\n" for n in names if n not in ("dense", "streaming", "random"))
        file = self.experiment(samples=1, tokens=(700,), methods=methods)
        self.ok("run", file)
        self.ok("run", file, "--tensor-parallel", 2)
        one, two = read_runs(self.folder / "results" / "x"), read_runs(self.folder / "results" / "x-tp2")
        self.assertEqual(one.keys(), two.keys())
        self.assertEqual(len(one), len(names))
        for key, samples in one.items():
            for sample, a in samples.items():
                b = two[key][sample]
                self.assertEqual((a["status"], b["status"]), ("ok", "ok"), (key, a.get("why"), b.get("why")))
                self.assertEqual(a["prediction"], b["prediction"], key)
                self.assertAlmostEqual(a["density"], b["density"], delta=2e-3, msg=key)
                self.assertEqual(b["tensor_parallel"], 2)
                self.assertNotIn("tensor_parallel", a)
                self.assertEqual((a["weights"], b["weights"]), ("random", "random"))
                self.assertNotIn("score", {**a, **a.get("dense", {})})
        specs = [json.loads(p.read_text()) for p in (self.folder / "results").rglob("spec.json")]
        self.assertEqual({s.get("tensor_parallel", 1) for s in specs}, {1, 2})
        self.assertEqual({s["model"].get("weights") for s in specs}, {"random"})
        self.assertTrue(all("score" not in json.loads(p.read_text()) for p in (self.folder / "results").rglob("summary.json")))
        rows = [line.split() for line in self.ok("report", self.folder / "results" / "x-tp2").splitlines()]
        self.assertEqual([row[3] for row in rows if row[1:3] == ["dense", "1"]], ["-"])  # no score in the table
        hardware = {json.loads(p.read_text())["hardware"] for p in (self.folder / "results" / "x-tp2").rglob("provenance.json")}
        self.assertTrue(all(h.startswith("2 ranks on ") for h in hardware), hardware)

    def test_the_file_can_say_it(self):
        file = self.experiment(samples=1, tokens=(300,))
        file.write_text(file.read_text() + "tensor_parallel: 3\n")
        self.ok("run", file)
        runs = read_runs(self.folder / "results" / "x")
        self.assertTrue(all(r["tensor_parallel"] == 3 for samples in runs.values() for r in samples.values()))
        self.ok("run", file, "--tensor-parallel", 1)
        self.assertEqual({k: {s: v[2] for s, v in samples.items()} for k, samples in outcome(read_runs(self.folder / "results" / "x-tp1")).items()},
                         {k: {s: v[2] for s, v in samples.items()} for k, samples in outcome(runs).items()})

    def test_what_no_rank_can_compute_is_on_record_and_the_rest_goes_on(self):
        # heads averaged over the groups of both ranks: each refuses
        file = self.experiment(samples=2, tokens=(300,), methods="  - {name: unisparse, params: {c_h: 9}}\n")
        self.ok("run", file, "--tensor-parallel", 2)
        runs = read_runs(self.folder / "results")
        for (label, _), samples in runs.items():
            self.assertEqual(len(samples), 2)
            for r in samples.values():
                self.assertEqual(r["status"], "unsupported" if "unisparse" in label else "ok", label)

    def test_too_many_ranks_are_refused(self):
        said = self.refused("run", self.experiment(samples=1), "--tensor-parallel", "4")
        self.assertIn("3 key/value heads, so at most 3 ranks can share this model, not 4", said)
        self.assertFalse((self.folder / "results").exists())

    def test_the_death_of_a_rank_ends_the_run(self):
        for victim in ("other", "first"):
            with self.subTest(victim):
                file = self.experiment(samples=500, tokens=(2000,), name=victim)
                child = subprocess.Popen([PROGRAM, "run", file, "--tensor-parallel", "2", "--quiet"], cwd=self.folder,
                                         stderr=subprocess.PIPE, text=True)
                deadline = time.time() + 120
                while time.time() < deadline and not any(p.stat().st_size for p in (self.folder / "results" / f"{victim}-tp2").rglob("samples.jsonl")):
                    time.sleep(0.02)
                others = children(child.pid)
                self.assertEqual(len(others), 1)
                os.kill(others[0] if victim == "other" else child.pid, signal.SIGKILL)
                code = child.wait(timeout=60)
                if victim == "other":
                    said = child.stderr.read()
                    self.assertEqual(code, 3, said)
                    self.assertIn("rank 1 was ended by signal 9", said)
                child.stderr.close()
                deadline = time.time() + 10
                while time.time() < deadline and any(pathlib.Path(f"/proc/{p}").exists() for p in others):
                    time.sleep(0.05)
                self.assertFalse([p for p in others if pathlib.Path(f"/proc/{p}").exists()])
                self.assertEqual(meeting_folders(), self.before)


if __name__ == "__main__":
    main()
