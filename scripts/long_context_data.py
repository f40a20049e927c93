#!/usr/bin/env python3
"""Makes the sequences that scripts/train_long_context.py trains on, of this project's own tasks and of prose.

    scripts/long_context_data.py --model DIR --out DATA --lengths 65536:40,131072:64

Every sequence of DATA/LENGTH.npz has LENGTH tokens and is one of
    kv     kv_retrieval's JSON object, asked about many keys instead of one
    mixed  the texts of passkey, number_string and needle_multikey behind each other, asked about all that they hide;
           the haystack is noise or prose by turns
    text   prose
`prefillbench generate` makes the texts, `prefillbench tokenize` the ids; a question and its answer are encoded apart, as
they are met when the model answers. The last quarter of every prose file is left out of the training and written to
DATA/held-out.txt, so that perplexity can be measured on text that the model has not seen. The seeds begin at --seed
(1000): measure with others.

LENGTH.npz: ids uint16 [n, LENGTH]; kinds uint8 [n, LENGTH], what the token is to be learnt as (0 nothing, 1 answer, 2
text); tasks [n]. Needs numpy and a built prefillbench.
"""
import argparse
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile

import numpy as np

NOTHING, ANSWER, TEXT = 0, 1, 2
KV_QUESTIONS, KV_ROOM = 48, 96  # questions of a sequence; tokens that a question and its answer take at most
NEEDLES, NEEDLE_ROOM = 16, 48


def die(message):
    sys.exit(f"long_context_data: {message}")


class Program:
    """The verbs of prefillbench that this script needs."""

    def __init__(self, path, model):
        self.path, self.model = path, model

    def call(self, *arguments):
        command = [self.path, arguments[0], "--model", self.model, *map(str, arguments[1:])]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError as e:
            die(f"{self.path}: {e.strerror}; build it (scripts/build.sh cpu prefillbench) or name it with --program")
        if done.returncode != 0:
            die(done.stderr.strip())
        return done.stdout

    def generate(self, task, tokens, count, seed, **parameters):
        """`count` rows of a generated task, each with a prompt of `tokens` tokens."""
        with tempfile.TemporaryDirectory() as temp:
            out = pathlib.Path(temp) / "rows.jsonl"
            sets = [x for k, v in parameters.items() for x in ("--set", f"{k}={v}")]
            self.call("generate", "--task", task, "--tokens", tokens, "--count", count, "--seed", seed, "--out", out,
                      *sets)
            return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]

    def encode(self, texts, separator):
        """The ids of every text, encoded by itself. `separator` is a special token that no text holds: tokenizers cut
        a text at special tokens before all else, so one call does for all texts."""
        if not texts:
            return []
        with tempfile.TemporaryDirectory() as temp:
            file = pathlib.Path(temp) / "texts.txt"
            file.write_bytes(separator.join(texts).encode())
            ids = json.loads(self.call("tokenize", "--no-special", "--json", "--file", file))["ids"]
        cut = json.loads(self.call("tokenize", "--no-special", "--json", separator))["ids"]
        if len(cut) != 1:
            die(f"{self.model}: '{separator}' is not a token of its own")
        pieces = [[]]
        for i in ids:
            if i == cut[0]:
                pieces.append([])
            else:
                pieces[-1].append(i)
        if len(pieces) != len(texts):
            die(f"{len(texts)} texts came back as {len(pieces)}: one of them holds '{separator}'")
        return pieces


def kv_sequence(row, questions, rng):
    """[(text, kind)]: the row's own question first, then other keys of the same object in the same words."""
    pairs = dict(re.findall(r'"([0-9a-f-]{36})": "([0-9a-f-]{36})"', row["context"]))
    gold = re.search(r'"([0-9a-f-]{36})"', row["input"]).group(1)
    others = rng.sample([k for k in pairs if k != gold], min(questions, len(pairs)) - 1)
    out = [(row["prompt"], NOTHING)]
    for n, key in enumerate([gold, *others]):
        if n:
            out.append(("\n\n" + row["input"].replace(gold, key), NOTHING))
        out.append((pairs[key] + '"', ANSWER))
    return out


def mixed_sequence(rows, prose, rng):
    """[(text, kind)]: three texts in any order, then all their questions in any order."""
    rng.shuffle(rows)
    head = rows[0]["prompt"].split(rows[0]["context"])[0]
    questions = []
    for row in rows:
        tail = row["prompt"].split(row["context"])[1]
        hidden = dict(re.findall(r"magic values for (\S+) is: (\d+)\.", row["context"]))
        if not hidden:
            questions.append((tail, row["answer"][0]))
        asked = next((k for k in hidden if f" {k} " in tail), None)
        questions += [(tail.replace(asked, k), v) for k, v in hidden.items()]
    rng.shuffle(questions)
    out = [(head, NOTHING), (" ".join(r["context"] for r in rows), TEXT if prose else NOTHING)]
    for question, answer in questions:
        out += [(question, NOTHING), (f" {answer}.", ANSWER)]
    return out


def draft(program, length, count, mix, seed, prose, rng):
    """`count` sequences as (task, [(text or ids, kind)]), in the proportions of `mix`."""
    kinds = [k for k, n in mix.items() for _ in range(n)]
    number = {k: sum(kinds[i % len(kinds)] == k for i in range(count)) for k in mix}
    out = []
    if number.get("kv"):
        questions = min(KV_QUESTIONS, length // 2 // KV_ROOM)
        for row in program.generate("kv_retrieval", length - questions * KV_ROOM, number["kv"], seed):
            out.append(("kv", kv_sequence(row, questions, rng)))
    for haystack, n in (("noise", (number.get("mixed", 0) + 1) // 2), ("prose", number.get("mixed", 0) // 2)):
        if not n:
            continue
        given = {"haystack": haystack} | ({"haystack_file": prose.path} if haystack == "prose" else {})
        needles = min(NEEDLES, length // 512)
        tokens, s = (length - (needles + 2) * NEEDLE_ROOM) // 3, seed + (haystack == "prose")
        parts = [program.generate("passkey", tokens, n, s, **given),
                 program.generate("number_string", tokens, n, s, **given),
                 program.generate("needle_multikey", tokens, n, s, keys=needles, **given)]
        out += [("mixed", mixed_sequence(list(rows), haystack == "prose", rng)) for rows in zip(*parts)]
    for _ in range(number.get("text", 0)):
        start = rng.randrange(max(1, len(prose.ids) - length))
        out.append(("text", [(prose.ids[start:start + length], TEXT)]))
    rng.shuffle(out)
    return out


def pack(program, drafts, length, separator, pad):
    """Arrays ids and kinds [n, length]: pieces put together, cut or padded at the end."""
    texts = [piece for _, pieces in drafts for piece, _ in pieces if isinstance(piece, str)]
    encoded = iter(program.encode(texts, separator))
    ids = np.full((len(drafts), length), pad, np.uint16)
    kinds = np.zeros((len(drafts), length), np.uint8)
    for n, (task, pieces) in enumerate(drafts):
        at = 0
        for piece, kind in pieces:
            piece = next(encoded) if isinstance(piece, str) else piece
            if at + len(piece) > length:
                die(f"a {task} sequence has more than {length} tokens")
            ids[n, at:at + len(piece)] = piece
            kinds[n, at:at + len(piece)] = kind
            at += len(piece)
    return ids, kinds


class Prose:
    """Three quarters of every file, for training; the rest goes to `held_out`."""

    def __init__(self, program, files, folder, separator):
        kept, held = [], []
        for file in files:
            try:
                paragraphs = pathlib.Path(file).read_text(encoding="utf-8").splitlines(keepends=True)
            except (OSError, UnicodeDecodeError) as e:
                die(f"{file}: {e}; --text names another UTF-8 text, scripts/fetch_prose.py fetches the default one")
            cut = 3 * len(paragraphs) // 4
            kept.append("".join(paragraphs[:cut]))
            held.append("".join(paragraphs[cut:]))
        self.path = folder / "prose.txt"
        self.path.write_text("".join(kept), encoding="utf-8")
        (folder / "held-out.txt").write_text("".join(held), encoding="utf-8")
        self.ids = [i for piece in program.encode(kept, separator) for i in piece]


def pairs(text):
    """'a:1,b:2' -> {'a': 1, 'b': 2}"""
    return {k: int(v) for k, v in (x.split(":") for x in text.split(","))}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    home = pathlib.Path(os.environ.get("PREFILLBENCH_HOME") or pathlib.Path.home() / ".cache/prefillbench")
    program = pathlib.Path(__file__).resolve().parent.parent / "build/cpu/prefillbench"
    parser.add_argument("--model", required=True, metavar="DIR", help="Hugging Face folder whose tokenizer counts")
    parser.add_argument("--out", required=True, type=pathlib.Path, metavar="DATA", help="folder to write")
    parser.add_argument("--lengths", type=pairs, default="65536:40,131072:64", metavar="TOKENS:SEQUENCES,...")
    parser.add_argument("--mix", type=pairs, default="kv:5,mixed:3,text:2", metavar="KIND:PARTS,...")
    parser.add_argument("--text", action="append", metavar="FILE", help="prose (UTF-8); may be repeated")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--program", default=str(program), help="prefillbench's path")
    args = parser.parse_args()
    if unknown := set(args.mix) - {"kv", "mixed", "text"}:
        parser.error(f"--mix knows kv, mixed and text, not {', '.join(sorted(unknown))}")
    args.out.mkdir(parents=True, exist_ok=True)

    config = json.loads((pathlib.Path(args.model) / "config.json").read_text())
    if config["vocab_size"] > 1 << 16:
        die(f"{args.model}: a vocabulary of {config['vocab_size']} does not fit 16 bits")
    run = Program(args.program, args.model)
    separator = json.loads((pathlib.Path(args.model) / "tokenizer_config.json").read_text())["eos_token"]
    prose = Prose(run, args.text or [home / "prose/austen.txt"], args.out, separator)
    rng = random.Random(args.seed)
    for n, (length, count) in enumerate(args.lengths.items()):
        length = int(length)
        drafts = draft(run, length, count, args.mix, args.seed + 2 * n, prose, rng)
        ids, kinds = pack(run, drafts, length, separator, config["eos_token_id"])
        np.savez_compressed(args.out / f"{length}.npz", ids=ids, kinds=kinds, tasks=[task for task, _ in drafts])
        print(f"{args.out / f'{length}.npz'}: {count} sequences, {(kinds == ANSWER).sum()} tokens of answers, "
              f"{(kinds == TEXT).sum()} of text")


if __name__ == "__main__":
    main()
