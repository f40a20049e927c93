#!/usr/bin/env python3
"""Random predictions, scored by `prefillbench score` and by plain Python that follows the text of the rules.

    python3 tests/scoring/properties.py PREFILLBENCH [CASES] [SEED]

The functions below restate section 2 of the scoring specification in the most literal way (str and re methods do the
work), so they share nothing with the C++ but the rules. Scores must be equal to the last bit, per row and in the mean;
a row on which a rule raises must be reported and count 0. Standard library only.
"""
import collections
import json
import math
import pathlib
import random
import re
import string
import subprocess
import sys
import tempfile

PROFILES = ["official", "official-88b3daa", "minference", "shareprefill", "flexprefill"]
MARKS = list("\n:\"'.,?!{}")
CN = ("\uff01\uff1f\uff61\u3002\uff02\uff03\uff04\uff05\uff06\uff07\uff08\uff09\uff0a\uff0b\uff0c\uff0d\uff0f\uff1a\uff1b"
      "\uff1c\uff1d\uff1e\uff20\uff3b\uff3c\uff3d\uff3e\uff3f\uff40\uff5b\uff5c\uff5d\uff5e\uff5f\uff60\uff62\uff63\uff64"
      "\u3001\u3003\u300b\u300c\u300d\u300e\u300f\u3010\u3011\u3014\u3015\u3016\u3017\u3018\u3019\u301a\u301b\u301c\u301d"
      "\u301e\u301f\u3030\u303e\u303f\u2013\u2014\u2018\u2019\u201b\u201c\u201d\u201e\u201f\u2026\u2027\ufe4f.")
assert len(set(CN)) == 75


def blank(text, what):
    for w in what:
        text = text.replace(w, " ")
    return text


def squeeze(text):
    return re.sub(" +", " ", text)


def pieces(label):
    """FlexPrefill's schema: numbers to text, a bare string to its characters, joined and split again."""
    mark = "===answerspliter==="
    items = list(label) if isinstance(label, (list, str)) else [label]
    return mark.join(x if isinstance(x, str) else str(x) for x in items).split(mark)


def digits(pred, label, profile):
    label = pieces(label)[0] if profile == "flexprefill" else label[0] if isinstance(label, list) else label
    found = re.search("[0-9]+", pred)
    return label == (found.group() if found else "")


def kv(pred, label, profile):
    marks = MARKS + (["</s>", "The", "To"] if profile in ("minference", "shareprefill") else [])
    words = blank(pred, marks).split()
    if profile == "official-88b3daa":
        return label in words
    if profile == "shareprefill":
        return label[0] in words
    if profile == "flexprefill":
        return "".join(pieces(label)) in words
    return (label[0] if isinstance(label, list) else label) in words


def code_run(pred, label, profile):
    if profile == "flexprefill":
        label = int(pieces(label)[0])
    elif isinstance(label, list):
        label = label[0]
    words = blank(pred.strip(), list("\n.`'\":")).split()
    try:
        return int(words[-1]) == label
    except (ValueError, IndexError):
        return False


def code_debug(pred, label, profile):
    if profile == "flexprefill":
        label = pieces(label)
    name, letter = label[0], label[1]
    pred = pred.strip()
    if pred[:2] in (letter + ".", letter + ":"):
        return True
    pred = squeeze(blank(pred, ["\n", "`", "'", '"', "-", "*", "Option", "option"]))
    for prefix in ("answer is:", "is:", "answer:", "correct option is:"):
        if prefix in pred:
            rest = pred.split(prefix, 1)[1]
            return rest != "" and (rest[1:].startswith(letter) or rest[1:].startswith(name))
    return False


def choice(pred, label, profile):
    if profile == "flexprefill":
        label = pieces(label)
    pred = pred.strip()
    if not pred:
        return False
    if pred[0] in "ABCD":
        return pred[0] in label
    if pred in label:
        return True
    pred = squeeze(blank(pred, list("\n\"'.,?!{}")))
    for prefix in ("answer is:", "answer:", "answer is", "option is"):
        if prefix in pred:
            rest = pred.split(prefix, 1)[1]
            return rest != "" and any(rest[1:].startswith(x) for x in label)
    for word in pred.split():
        if word in "ABCD":
            return word in label
    return False


def math_find(pred, label, profile):
    if profile == "flexprefill":
        label = int(float(pieces(label)[0]))
    elif isinstance(label, list):
        label = label[0]
    found = re.search(r"\d+\.\d+|\d+", pred)
    if not isinstance(label, (int, float)):
        raise TypeError
    if not found:
        return False
    if isinstance(label, float):
        return float(found.group()) == label
    if profile == "official-88b3daa":
        return int(found.group()) == label
    value = float(found.group())
    if math.isinf(value) and profile in ("official", "flexprefill"):
        return False
    return int(value) == label


def dialogue(pred, label, profile):
    if profile == "flexprefill":
        return any(x.upper() in pred.strip().upper() for x in pieces(label))
    return label[0] in [w.upper() for w in blank(pred, MARKS).split()]


def english(text):
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def chinese(text):
    return list("".join("".join(c for c in text.lower() if c not in string.punctuation + CN).split()))


def best_f1(pred, labels, profile, tokens):
    best = 0
    for label in pieces(labels) if profile == "flexprefill" else labels:
        p, r = tokens(pred), tokens(label)
        common = sum((collections.Counter(p) & collections.Counter(r)).values())
        if common:
            precision, recall = common / len(p), common / len(r)
            best = max(best, (2 * precision * recall) / (precision + recall))
    return best


def rouge(pred, label, profile):
    def lines(text):
        return [re.findall("[a-z0-9]+", line.lower()) for line in text.split("\n") if line]

    def one(target):
        ref, can = lines(target), lines(pred)
        count_r = collections.Counter(t for s in ref for t in s)
        count_c = collections.Counter(t for s in can for t in s)
        m, n, hits = sum(count_r.values()), sum(count_c.values()), 0
        if not m or not n:
            return 0
        for r in ref:
            union = set()
            for c in can:
                t = [[0] * (len(c) + 1) for _ in range(len(r) + 1)]
                for i in range(len(r)):
                    for j in range(len(c)):
                        t[i + 1][j + 1] = t[i][j] + 1 if r[i] == c[j] else max(t[i][j + 1], t[i + 1][j])
                i, j = len(r), len(c)
                while i and j:
                    if r[i - 1] == c[j - 1]:
                        union.add(i - 1)
                        i, j = i - 1, j - 1
                    elif t[i][j - 1] > t[i - 1][j]:
                        j -= 1
                    else:
                        i -= 1
            for i in sorted(union):
                if count_r[r[i]] > 0 and count_c[r[i]] > 0:
                    hits += 1
                    count_r[r[i]] -= 1
                    count_c[r[i]] -= 1
        recall, precision = hits / m, hits / n
        return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0

    if profile == "flexprefill":
        return one(pieces(label)[0])
    return max(map(one, label)) if isinstance(label, list) else one(label)


def math_calc(pred, label, profile, model):
    if not isinstance(label, list):
        raise TypeError
    if profile in ("official", "official-88b3daa") and isinstance(label[0], list):
        label = label[0]
    runs = re.findall("[0-9]+", pred)
    if any(len(r) > 4300 for r in runs):
        raise ValueError
    numbers = [int(r) for r in runs][1 if model == "gpt4" else 0:]
    hits = 0
    while hits < min(len(label), len(numbers)) and label[hits] == numbers[hits]:
        hits += 1
    return hits / len(label)


def string_match(pred, refs, all_of_them):
    pred = re.sub("[\x00-\x1f]", "\n", pred.strip()).strip().lower()
    hits = [1.0 if r.lower() in pred else 0.0 for r in refs]
    return sum(hits) / len(hits) if all_of_them else max(hits)


# ------------------------------------------------------------------------------------------- random rows


class Maker:
    """Pieces that make rules fire: marks, spaces of all kinds, letters whose case changes, digits of other scripts."""

    NOISE = ["\n", " ", "  ", "\t", "\u00a0", "\u3000", "\u2028", "\x1f", "\x85", ":", '"', "'", ".", ",", "?", "!", "{", "}", "`", "*", "-", "(", ")",
             "\u201c", "\u201d", "\u2026", "_", "</s>", "The", "To", "the", "a", "an", "Option", "option", "answer is:", "is:", "answer:",
             "answer is", "option is", "correct option is:", "A", "B", "C", "D", "BC", "c", "A.", "B:", "\u0130", "\u212a", "\u00df", "\u03a3",
             "\u03bf\u03a3", "\u00c9clair", "\ufb01n", "\u0663", "\uff15", "\u4e24\u4e2a", "\u300a", "\u300b", "\u3002", "\U0001f600", "12", "12.0",
             "007", "1_0", "+5", "-5", "\u22125", "5.", "51.5", "9" * 25, "e\u0301", "don't", "x", "None", "\ud800"]

    def __init__(self, rng):
        self.rng = rng

    def text(self, *extra, longest=8):
        return "".join(self.rng.choice(extra if extra and self.rng.random() < 0.45 else self.NOISE) + self.rng.choice(["", "", " "])
                       for _ in range(self.rng.randrange(longest + 1)))

    def words(self, lines):
        vocabulary = ["cat", "dog", "ran", "sat", "A", "the", "it's", "\u00e9t\u00e9", "\u212aelvin", "b2b", "--", "I\u0130"]
        return self.rng.choice(["\n", "\n\n", "\r\n"]).join(
            " ".join(self.rng.choices(vocabulary, k=self.rng.randrange(9))) for _ in range(self.rng.randrange(1, lines)))


def row(task, m):
    rng = m.rng
    pick = rng.choice
    if task in ("passkey", "number_string"):
        key = pick(["71432", "07143", "3000077442", "5", ""])
        return m.text(key, key + ".", "99 "), pick([[key], key, [key, "1"], [], 71432, [71432]])
    if task == "kv_retrieval":
        key = pick(["5b6c-4d2e", "Theodore-1", "x"])
        return m.text(key, f'"{key}".', f"`{key}`", "The" + key), pick([[key], key, [], 5, [5], [key, "other"]])
    if task == "code_run":
        return m.text("5", "-5", "5.", "1_0", "`5`"), pick([5, [5], [-5], -5, [10], 5.0, [True], ["5"], [], None])
    if task == "code_debug":
        name, letter = pick(["fnX", "run", "get_a"]), pick("ABCD")
        return m.text(letter, name, f"{letter}.", f"{letter}:", f"is: {letter}", f"is: **{letter}**", f"is:{letter}"), pick(
            [[name, letter], [name, letter], [name], name, []])
    if task == "longbook_choice_eng":
        text, letter = pick(["Snowfield", "Mr. X", "Carla"]), pick("ABCD")
        return m.text(letter, text, f"is {letter}", f"is: {text}"), pick([[text, letter], [text, letter], [text], text, [], 7])
    if task == "math_find":
        return m.text("12", "12.0", "12.9", "51", "51.5", "9" * 400, "\u0661\u0662"), pick([[12], 12, [51.0], 51.5, [51.5], [True], ["12"], [], None, 10**24])
    if task == "longdialogue_qa_eng":
        name = pick(["ACE", "STAMP PAID", "O'HARA", "STRASSE", "\u039f\u03a3"])
        return m.text(name, name.lower(), name.title(), "stra\u00dfe", f"({name})"), pick([[name], [name, "OTHER"], name, [], [5], 5])
    if task == "longbook_qa_eng":
        answer = pick(["the Hebrides", "a-b c", '"Peyton"', "\u00c9CLAIR", "\u03bf\u03b4\u03bf\u03a3", "the"])
        return m.text(answer, answer.lower(), "Hebrides", "ab", "islands"), pick([[answer], [answer, "x the y"], answer, [], [5], 5])
    if task == "longbook_qa_chn":
        answer = pick(["\u4e24\u4e2a", "\u300a\u7ea2\u697c\u68a6\u300b", "2", "\u674e \u56db\u3002"])
        return m.text(answer, "\u4e24\u4e2a\u4eba", "\u7ea2\u697c"), pick([["2", answer], [answer], answer, [], [2]])
    if task == "longbook_sum_eng":
        return m.words(5), pick([[m.words(5)], [m.words(4), m.words(4)], m.words(5), ["x"], [], 5])
    if task == "math_calc":
        values = [rng.randrange(100) for _ in range(rng.randrange(1, 8))]
        said = values[: rng.randrange(len(values) + 1)] + [rng.randrange(100) for _ in range(rng.randrange(3))]
        if rng.random() < 0.3:
            said = [1] + said
        return pick([", ", " ", "\n"]).join(map(str, said)) + pick(["", "]", " 9" + "9" * 4300]), pick(
            [values, [values], values, [], [[]], 5, [float(v) for v in values]])
    refs = rng.sample(["71432", "ACE", "Stra\u00dfe", "a b", "\u0130x"], rng.randrange(1, 4))
    return m.text(*refs, *[r.lower() for r in refs], *[r.upper() for r in refs]), pick([refs, refs, refs, []])


RULES = {"passkey": digits, "number_string": digits, "kv_retrieval": kv, "code_run": code_run, "code_debug": code_debug,
         "longbook_choice_eng": choice, "math_find": math_find, "longdialogue_qa_eng": dialogue,
         "longbook_qa_eng": lambda p, l, f: best_f1(p, l, f, english), "longbook_qa_chn": lambda p, l, f: best_f1(p, l, f, chinese),
         "longbook_sum_eng": rouge, "ruler/vt": lambda p, l, f: string_match(p, l, True),
         "ruler/qa_1": lambda p, l, f: string_match(p, l, False)}


def check(program, task, profile, model, cases, seed, folder):
    rng = random.Random(f"{seed}/{task}")  # the same rows for every profile
    maker = Maker(rng)
    rows, expected, raising = [], [], []
    for i in range(cases):
        pred, label = row(task, maker)
        rows.append((pred, label))
        try:
            rule = RULES.get(task)
            score = float(rule(pred, label, profile) if rule else math_calc(pred, label, profile, model))
        except (TypeError, ValueError, IndexError, KeyError, AttributeError, ZeroDivisionError, OverflowError):
            score = 0.0
            raising.append(i + 1)
        expected.append(score)
    path = pathlib.Path(folder, model, "preds.jsonl")
    path.parent.mkdir(exist_ok=True)
    # half of the rows escaped, half as plain UTF-8 (which can not carry a lone surrogate)
    path.write_bytes("".join(json.dumps({"id": i, "prediction": p, "ground_truth": t}, ensure_ascii=bool(i % 2) or "\ud800" in p) + "\n"
                             for i, (p, t) in enumerate(rows)).encode())
    done = subprocess.run([program, "score", "--task", task, "--profile", profile, "--predictions", str(path), "--per-example", "--json"],
                          capture_output=True, text=True)
    where = f"{task}, profile {profile}, model {model}"
    assert done.returncode == (1 if raising else 0), f"{where}: exit {done.returncode}\n{done.stderr[:2000]}"
    got = json.loads(done.stdout)
    assert len(got["per_example"]) == cases == got["n"], where
    for i, (mine, theirs) in enumerate(zip(expected, got["per_example"])):
        assert mine == theirs, f"{where}: row {rows[i]!r} scores {theirs!r}, the rule says {mine!r}"
    assert [e["line"] for e in got["errors"]] == raising, f"{where}: rows that raise differ: " + repr(
        [(rows[k - 1], k) for k in set(raising) ^ {e["line"] for e in got["errors"]}][:5])
    total = 0.0
    for score in expected:
        total += score
    assert got["score"] == total / cases, f"{where}: mean {got['score']!r} against {total / cases!r}"
    return sum(expected), len(raising)


def main():
    program = sys.argv[1]
    cases = int(sys.argv[2]) if len(sys.argv) > 2 else 600
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    with tempfile.TemporaryDirectory() as folder:
        for task in list(RULES) + ["math_calc"]:
            for profile in PROFILES:
                if task == "math_calc" and profile == "flexprefill":
                    continue
                for model in ["some-model"] + (["gpt4", "GPT-4"] if task == "math_calc" else []):
                    hits, raised = check(program, task, profile, model, cases, seed, folder)
                    # a test whose rows all score 0 or all raise would prove nothing
                    assert hits > 0 and raised < cases, f"{task}, {profile}: {hits} hits, {raised} raise"
    print(f"{len(RULES) + 1} tasks x {len(PROFILES)} profiles x {cases} rows agree")


if __name__ == "__main__":
    main()
