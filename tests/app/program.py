"""What the tests of the program share: a folder with a tiny model, calls, and reading results back."""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from tiny_model import write_tiny_model  # noqa: E402

PROGRAM = pathlib.Path(sys.argv[1]).resolve()


class ProgramTest(unittest.TestCase):
    def setUp(self):
        self._temp = tempfile.TemporaryDirectory()
        self.addCleanup(self._temp.cleanup)
        self.folder = pathlib.Path(self._temp.name)
        write_tiny_model(self.folder / "model")

    def call(self, *args, **kw):
        return subprocess.run([str(PROGRAM), *map(str, args)], capture_output=True, text=True, cwd=self.folder, **kw)

    def ok(self, *args, **kw):
        done = self.call(*args, **kw)
        self.assertEqual(done.returncode, 0, f"{args}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        return done.stdout

    def refused(self, *args):
        """Bad input: exit 2 and one line on stderr, which is returned."""
        done = self.call(*args)
        self.assertEqual(done.returncode, 2, f"{args}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        lines = done.stderr.strip().splitlines()
        self.assertEqual(len(lines), 1, done.stderr)
        return lines[0]

    def experiment(self, samples=4, tokens=(300, 400), methods="", name="x"):
        path = self.folder / f"{name}.yaml"
        path.write_text(f"""schema: 1
name: {name}
model: {self.folder / "model"}
backend: cpu
workloads:
  - {{task: passkey, tokens: {list(tokens)}, samples: {samples}, seed: 3}}
methods:
  - name: dense
  - name: streaming
    params: {{sink: 4, local: 40}}
  - name: random
    params: {{density: 0.5}}
{methods}""")
        return path


def read_runs(folder):
    """{(method label, tokens): {sample: record}} of a results folder; a sample on record twice is an error."""
    runs = {}
    for spec_file in pathlib.Path(folder).rglob("spec.json"):
        spec = json.loads(spec_file.read_text())
        samples = {}
        for log in sorted(spec_file.parent.glob("samples*.jsonl")):
            for line in log.read_text().splitlines():
                record = json.loads(line)
                if record["sample"] in samples:
                    raise AssertionError(f"{log}: sample {record['sample']} is on record twice")
                samples[record["sample"]] = record
        runs[spec["method"]["label"], spec["workload"]["tokens"]] = samples
    return runs


def outcome(runs):
    """What must not depend on how a run was stopped or divided: scores, answers, densities."""
    return {key: {s: (r["status"], r.get("score"), r.get("prediction"), r.get("density")) for s, r in samples.items()}
            for key, samples in runs.items()}


def main():
    unittest.main(argv=[sys.argv[0]])
