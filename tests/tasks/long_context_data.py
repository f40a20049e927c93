#!/usr/bin/env python3
"""The sequences of scripts/long_context_data.py: what is asked and answered is what the text in front says.

    python3 tests/tasks/long_context_data.py PREFILLBENCH

Needs numpy and the tokenizer of the fetched model; ends with 77 (skipped) without them.
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

try:
    import numpy as np
except ImportError:
    sys.exit(77)

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOME = pathlib.Path(os.environ.get("PREFILLBENCH_HOME") or pathlib.Path.home() / ".cache/prefillbench")
MODEL = HOME / "smollm2-135m-instruct-128k"
LENGTH = 2048


def call(*args):
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, args))}: exit {done.returncode}\n{done.stderr[-2000:]}"
    return done.stdout


def pieces(program, folder, ids, kinds):
    """Of every sequence [(kind, text)], its runs of one kind."""
    runs, flat = [], []
    for i, k in zip(ids, kinds):
        cuts = [0, *(np.flatnonzero(np.diff(k)) + 1), len(i)]
        runs.append([int(k[a]) for a in cuts[:-1]])
        for a, b in zip(cuts, cuts[1:]):
            flat += [*i[a:b].tolist(), 0]  # 0 is <|endoftext|>, which no sequence has
    (folder / "ids.json").write_text(json.dumps(flat))
    texts = call(program, "detokenize", "--keep-special", "--model", MODEL, "--ids", folder / "ids.json")
    texts = iter(texts.split("<|endoftext|>"))
    return [[(kind, next(texts)) for kind in run] for run in runs]


def main():
    if not (MODEL / "tokenizer.json").exists():
        sys.exit(77)
    program = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        sentences = [f"Chapter {n} was written on day {n * n} in a town of {n + 7} houses." for n in range(2000)]
        (folder / "book.txt").write_text("".join(s + "\n" for s in sentences))
        make = (sys.executable, ROOT / "scripts/long_context_data.py", "--program", program, "--model", MODEL,
                "--text", folder / "book.txt", "--lengths", f"{LENGTH}:6", "--mix", "kv:2,mixed:2,text:1")
        call(*make, "--out", folder / "data")
        with np.load(folder / "data" / f"{LENGTH}.npz") as z:
            ids, kinds, tasks = z["ids"], z["kinds"], list(z["tasks"])
        assert ids.shape == kinds.shape == (6, LENGTH) and sorted(tasks) == ["kv", "kv", "kv", "mixed", "mixed", "text"]
        assert len({x.tobytes() for x in ids}) == 6

        objects, asked = [], 0
        for task, parts in zip(tasks, pieces(program, folder, ids, kinds)):
            if task == "text":
                assert [kind for kind, _ in parts] == [2] and parts[0][1].count("was written on day") > 50
                continue
            seen = ""
            for n, (kind, text) in enumerate(parts):
                if kind == 1 and task == "kv":
                    key = re.findall(r'Key: "([^"]+)"\nThe value[^\n]*: "$', seen)[-1]
                    stored = json.loads(seen[seen.index("{"):seen.index("}") + 1])
                    assert text == stored[key] + '"', (key, text)
                elif kind == 1:
                    question = seen.rsplit("\n\n", 1)[1] if "magic" in seen.rsplit("\n\n", 1)[1] else seen[-200:]
                    thing = re.search(r"(special magic value for \S+|pass key|sequence of digits) is$", question).group(1)
                    said = {"special": f"One of the {thing.replace('value', 'values')} is: ", "pass": "The pass key is ",
                            "sequence": "The sequence of digits is "}[thing.split()[0]]
                    assert said + text[1:] in seen, (said, text)
                asked += kind == 1
                seen += text
            if task == "kv":
                objects.append(set(stored))
        assert asked >= 3 * 5 + 2 * 4, asked
        assert len(set.union(*objects)) == sum(map(len, objects)), "other sequences, other keys"

        held = (folder / "data/held-out.txt").read_text().splitlines()
        trained = set((folder / "data/prose.txt").read_text().splitlines())
        assert len(held) == 500 and not trained & set(held) and trained | set(held) == set(sentences)

        first = (folder / "data" / f"{LENGTH}.npz").read_bytes()
        call(*make, "--out", folder / "again")
        assert first == (folder / "again" / f"{LENGTH}.npz").read_bytes(), "same arguments, same bytes"
    print("long_context_data: ok")


if __name__ == "__main__":
    main()
