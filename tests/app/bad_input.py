#!/usr/bin/env python3
"""Bad input: exit 2, a line that names the file and what would be right, and nothing created.

    python3 tests/app/bad_input.py PREFILLBENCH
"""
import json
import os
import struct

from program import ProgramTest, main

TEN_MISTAKES = """schema: 1
name: bad
modle: x
backend: cpuu
workloads:
  - {task: pass_key, tokens: 4096}
  - {task: passkey, tokens: many}
  - {task: passkey, tokens: 4096, samples: 0}
methods:
  - name: dens
  - name: streaming
    params: {sinks: 32}
  - name: random
    params: {density: 1.5}
  - name: flexprefill
    params: {gamma: high}
  - name: xattention
    grid: {threshold: []}
"""


class BadInput(ProgramTest):
    def test_ten_mistakes_ten_messages_nothing_created(self):
        file = self.folder / "bad.yaml"
        file.write_text(TEN_MISTAKES)
        before = sorted(self.folder.rglob("*"))
        for verb in ("check", "run", "plan"):
            done = self.call(verb, file)
            self.assertEqual(done.returncode, 2)
            messages = [line for line in done.stderr.splitlines() if "bad.yaml:" in line]
            self.assertEqual(len(messages), 10, done.stderr)
            lines = [int(m.split("bad.yaml:")[1].split(":")[0]) for m in messages]
            self.assertEqual(sorted(lines), [3, 4, 6, 7, 8, 10, 12, 14, 16, 18], done.stderr)
            self.assertIn("dense", [m for m in messages if "bad.yaml:10" in m][0])  # did you mean
        self.assertEqual(sorted(self.folder.rglob("*")), before)

    def test_missing_file(self):
        self.assertIn("none.yaml", self.refused("run", "none.yaml"))

    def test_unknown_verb_and_method(self):
        self.assertIn("report", self.refused("reprot"))
        self.assertIn("flexprefill", self.refused("describe", "flexprefil"))

    def run_model(self):
        return self.refused("run", self.experiment())

    def test_truncated_weights(self):
        weights = self.folder / "model/model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        self.assertIn("model.safetensors", self.run_model())

    def test_weights_with_nan(self):
        weights = self.folder / "model/model.safetensors"
        data = bytearray(weights.read_bytes())
        size = struct.unpack("<Q", data[:8])[0]
        begin = json.loads(data[8:8 + size])["model.layers.0.mlp.down_proj.weight"]["data_offsets"][0]
        data[8 + size + begin:8 + size + begin + 4] = struct.pack("<f", float("nan"))
        weights.write_bytes(data)
        found = self.call("doctor", "--model", "model", "--json")
        self.assertEqual(found.returncode, 2)
        wrong = [f["what"] for f in json.loads(found.stdout)["findings"] if f["level"] == "error"]
        self.assertEqual(len(wrong), 1, wrong)
        for said in (self.run_model(), wrong[0]):
            self.assertIn("model.safetensors: tensor 'model.layers.0.mlp.down_proj.weight' holds NaN", said)

    def test_missing_tensor(self):
        config = self.folder / "model/config.json"
        config.write_text(config.read_text().replace('"num_hidden_layers": 1', '"num_hidden_layers": 2'))
        self.assertIn("model.layers.1.", self.run_model())

    def test_tokenizer_of_another_model(self):
        tokenizer = self.folder / "model/tokenizer.json"
        data = json.loads(tokenizer.read_text())
        data["model"]["vocab"] = {token: 1000 + id for token, id in data["model"]["vocab"].items()}
        tokenizer.write_text(json.dumps(data))
        experiment = self.experiment()
        (self.folder / "prompt.txt").write_text("a prompt")
        (self.folder / "prompts.jsonl").write_text('{"prompt": "a prompt"}\n')
        before = sorted(self.folder.rglob("*"))
        for call in (("run", experiment), ("plan", experiment),
                     ("capture", "--model", "model", "--prompt-file", "prompt.txt", "--layers", "0", "--out", "x.safetensors"),
                     ("calibrate", "xattention", "--model", "model", "--data", "prompts.jsonl", "--out", "x.json")):
            said = self.refused(*call)
            for part in (str(self.folder / "model") + ":", "has ids up to 1255", "ends at 256", "not this model's tokenizer"):
                self.assertIn(part, said)
        self.assertEqual(sorted(self.folder.rglob("*")), before)

    def test_artefact_of_other_weights(self):
        (self.folder / "prompts.jsonl").write_text(json.dumps({"prompt": "abc " * 64}) + "\n")
        self.ok("calibrate", "xattention", "--model", "model", "--data", "prompts.jsonl", "--out", "x.json")
        methods = "  - name: xattention\n    params: {thresholds: x.json}\n"
        self.ok("plan", self.experiment(methods=methods))
        made_for = json.loads((self.folder / "x.json").read_text())["model"]["fingerprint"]
        weights = self.folder / "model/model.safetensors"
        data = bytearray(weights.read_bytes())
        data[-2] ^= 1
        weights.write_bytes(data)
        file = self.experiment(methods=methods)
        said = self.refused("run", file)
        self.assertIn(said[len("prefillbench: "):], self.call("check", file).stderr)
        for part in ("x.yaml:14:26: ", made_for[:12], "same shape but other weights", "prefillbench calibrate xattention"):
            self.assertIn(part, said)
        self.assertFalse((self.folder / "results").exists())

    def test_check_opens_the_files_that_are_named(self):
        (self.folder / "latin1.txt").write_bytes("Straße. ".encode("latin-1") * 2000)
        (self.folder / "table.json").write_text("[[0.9], [0.9]]")
        file = self.experiment(methods="""  - name: xattention
    grid: {thresholds: [none.json, table.json], stride: [8, 16]}
  - name: minference
    params: {pattern_file: none.json}
""")
        text = file.read_text().replace("methods:\n", """  - {task: passkey, params: {haystack: prose, haystack_file: latin1.txt}, tokens: [300, 400]}
  - {task: ruler/qa_1, params: {file: none.json}}
methods:
""", 1)
        file.write_text(text)
        def place(line, word):
            return f"x.yaml:{line}:{text.splitlines()[line - 1].index(word) + 1}: "
        done = self.call("check", file)
        self.assertEqual(done.returncode, 2, done.stdout)
        said = done.stderr.splitlines()
        wanted = [(place(7, "latin1"), "latin1.txt: not UTF-8 at byte 4"), (place(8, "none.json"), "none.json"),
                  (place(16, "none.json"), "none.json"), (place(16, "table.json"), "2 layers, this model has 1"),
                  (place(18, "none.json"), "none.json")]
        self.assertEqual(len(said), len(wanted) + 1, done.stderr)
        for line, (where, what) in zip(said, wanted):
            self.assertIn(where, line)
            self.assertIn(what, line.split(where)[1])
        self.assertIn("\n".join(said[:-1]), self.call("run", file).stderr)
        as_json = self.call("check", file, "--json")
        self.assertEqual((as_json.returncode, as_json.stderr), (2, ""))
        found = json.loads(as_json.stdout)["mistakes"]
        self.assertEqual([f"{f['file']}:{f['line']}:{f['column']}: {f['text']}" for f in found], said[:-1])
        file.write_bytes(text.encode().replace(b"dense", b"d\xe9nse"))
        self.assertIn("unknown method 'd\ufffdnse'", json.loads(self.call("check", file, "--json").stdout)["mistakes"][0]["text"])
        self.assertFalse((self.folder / "results").exists())

    def test_check_says_what_it_could_not_open(self):
        file = self.experiment()
        file.write_text(file.read_text().replace("methods:\n", "  - {task: ruler/qa_1}\nmethods:\n", 1))
        done = self.call("check", file)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("note: ruler/qa_1@4096 would be skipped: ", done.stderr)
        said = json.loads(self.ok("check", file, "--json"))
        self.assertEqual((said["experiment"], said["mistakes"], said["method_points"], said["workloads"]), ("x", [], 3, 2))
        self.assertEqual([n["text"].split(":")[0] for n in said["notes"]], ["note"])
        self.assertEqual([p["method"] for p in said["pruned"]], ["ruler/qa_1@4096"])
        file.write_text(file.read_text().replace(str(self.folder / "model"), "smollm2-135m-instruct"))
        done = self.call("check", file, env={**os.environ, "PREFILLBENCH_HOME": str(self.folder)})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("the files of tasks and methods are not checked", done.stderr)

    def test_doctor_on_a_short_context_and_on_no_config(self):
        config = self.folder / "model/config.json"
        config.write_text(config.read_text().replace('"max_position_embeddings": 4096', '"max_position_embeddings": 1000'))
        said = self.ok("doctor", "--model", "model")
        self.assertRegex(said, r"memory: .*1000\s+tokens \d+ MiB")
        config.unlink()
        said = self.refused("doctor", "--model", "model")
        self.assertIn("config.json is missing in the folder", said)
        self.assertIn("was not found", self.refused("doctor", "--model", "nowhere"))

    def test_empty_and_broken_predictions(self):
        (self.folder / "empty.jsonl").write_text("")
        self.assertIn("empty.jsonl", self.refused("score", "--task", "passkey", "--predictions", "empty.jsonl"))
        (self.folder / "broken.jsonl").write_text('{"id": 1, "prediction": "7", "ground_truth": "7"}\n{"id": 2,\n')
        done = self.call("score", "--task", "passkey", "--predictions", "broken.jsonl", "--json")
        self.assertIn("broken.jsonl:2", done.stderr)

    def test_results_of_another_experiment_folder_are_not_a_report(self):
        (self.folder / "nothing").mkdir()
        self.assertIn("nothing", self.refused("report", "nothing"))

    def test_wrong_shard(self):
        self.assertIn("--shard", self.refused("run", self.experiment(), "--shard", "3/2"))


if __name__ == "__main__":
    main()
