#!/usr/bin/env python3
"""capture, select, attend and calibrate from the command line, on a random one-layer model.

    python3 tests/methods/verbs.py PREFILLBENCH

Standard library only.
"""
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from tiny_model import write_tiny_model  # noqa: E402

METHOD_OF_ARTEFACT = {  # parameter that takes it, parameters of the calibration
    "minference": ("pattern_file", []),
    "shareprefill": ("lookup", []),
    "sale": ("thresholds", []),
    "xattention": ("thresholds", ["stride=16"]),
    "trianglemix": ("layer_file", ["local=64", "last=16", "tolerance=0.01"]),
}


def read_safetensors(path):
    data = pathlib.Path(path).read_bytes()
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8:8 + size]), data[8 + size:]


def write_safetensors(path, header, blob):
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    pathlib.Path(path).write_bytes(len(head).to_bytes(8, "little") + head + blob)


def main():
    program = str(pathlib.Path(sys.argv[1]).resolve())
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "home").mkdir()
        write_tiny_model(folder / "home" / "toy")
        env = {**os.environ, "PREFILLBENCH_HOME": str(folder / "home")}

        def call(*args, code=0):
            done = subprocess.run([program, *map(str, args)], capture_output=True, text=True, env=env, cwd=folder)
            assert done.returncode == code, f"{args}: exit {done.returncode}\n{done.stdout}\n{done.stderr[-3000:]}"
            return done.stdout + done.stderr

        rng = random.Random(5)
        words = [" ".join(rng.choice(["alpha", "beta", "gamma", "delta"]) for _ in range(110)) for _ in range(2)]
        (folder / "prompt.txt").write_text(words[0][:600])
        (folder / "data.jsonl").write_text("".join(json.dumps({"prompt": w}) + "\n" for w in words))

        # The model is found by its name, and the capture says what it was.
        call("capture", "--model", "toy", "--prompt-file", "prompt.txt", "--layers", "0", "--out", "x.safetensors",
             "--backend", "cpu-ref", "--dtype", "float32")
        header, blob = read_safetensors(folder / "x.safetensors")
        meta = header["__metadata__"]
        assert (meta["model"], meta["model_layers"], float(meta["rope_theta"])) == ("toy", "1", 10000.0), meta

        select = ("select", "--qkv", "x.safetensors", "--out", "plan.safetensors", "--backend", "cpu-ref")
        facts = json.loads(call(*select, "--method", "streaming", "--set", "sink=16", "--set", "local=64", "--json"))
        assert 0 < facts["density"] < 1 and facts["tokens"] == 600, facts

        # A plan that counts keys twice is written with each key once, says so, and can be executed.
        said = call(*select, "--method", "anchor", "--set", "semantics=released", "--set", "block=16", "--set", "step=4")
        assert "left out: second counts of" in said, said
        said = call("attend", "--qkv", "x.safetensors", "--plan", "plan.safetensors", "--out", "o.safetensors", "--backend", "cpu-ref")
        assert "layer 0, 600 tokens" in said, said

        # Flags may say what the file does not, and may not contradict it.
        assert "toy, --model says other" in call(*select, "--method", "dense", "--model", "other", code=2)
        assert "10000, --rope-theta says 500" in call(*select, "--method", "dense", "--rope-theta", "500", code=2)
        call(*select, "--method", "dense", "--model", "toy", "--model-layers", "1", "--rope-theta", "10000")
        silent = {k: v for k, v in header.items() if k != "__metadata__"}
        write_safetensors(folder / "x.safetensors", silent, blob)
        call(*select, "--method", "prism", "--model", "other", "--rope-theta", "500", "--set", "block=32")
        write_safetensors(folder / "x.safetensors", {**silent, "__metadata__": {"scale": "a quarter"}}, blob)
        assert "metadata scale = 'a quarter'" in call(*select, "--method", "dense", code=2)
        write_safetensors(folder / "x.safetensors", header, blob)

        # Every calibration leaves a file that its method takes, for this model alone.
        for method, (field, settings) in METHOD_OF_ARTEFACT.items():
            sets = [a for s in settings for a in ("--set", s)]
            out = f"{method}.json"
            call("calibrate", method, "--model", "toy", "--data", "data.jsonl", "--tokens", "500", "--out", out, *sets,
                 "--backend", "cpu-ref", "--dtype", "float32")
            artefact = json.loads((folder / out).read_text())
            assert artefact["method"] == method and artefact["model"]["id"] == "toy", artefact
            assert len(artefact["data_sha256"]) == 64 and artefact["settings"]["prompt_tokens"] == [500, 500], artefact["settings"]
            call(*select, "--method", method, "--set", f"{field}={out}")
            artefact["model"]["q_heads"] = 5
            (folder / "other.json").write_text(json.dumps(artefact))
            said = call(*select, "--method", method, "--set", f"{field}=other.json", code=2)
            assert "other.json: made for model 'toy' with 5 q_heads; 'toy' has 2" in said, said
        assert max(len(line) for line in call("calibrate", "--help").splitlines()) <= 130
    print("capture, select, attend and five calibrations")


if __name__ == "__main__":
    main()
