#!/usr/bin/env python3
"""Writes tasks/scoring/unicode_tables.inc: what Python's str methods know about code points.

Also tests/scoring/unicode_digests.json, SHA-256 sums of what the str methods say about every code point, which is
what the C++ functions are held against.

The official scorers are Python programs, so "lower case", "white space", "digit" and "word character" mean what
Python means by them. The tables are taken from the running interpreter; the committed ones are of Python 3.11
(Unicode 14). Needs nothing but the standard library:

    python3 scripts/make_unicode_tables.py
"""
import hashlib
import json
import pathlib
import re
import sys
import unicodedata

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "tasks/scoring/unicode_tables.inc"
DIGESTS = ROOT / "tests/scoring/unicode_digests.json"
ALL = range(sys.maxunicode + 1)


def ranges(test):
    """[first, last] runs of the code points that pass."""
    out = []
    for c in ALL:
        if test(chr(c)):
            if out and out[-1][1] == c - 1:
                out[-1][1] = c
            else:
                out.append([c, c])
    return out


def case_runs(change):
    """Runs of one-to-one changes with one distance and one step, and the changes into several code points.

    Capital sigma gets its plain change; that it ends words differently is a rule in the code.
    """
    runs, special = [], []
    for c in ALL:
        to = change(chr(c))
        if to == chr(c):
            continue
        if len(to) > 1:
            special.append((c, [ord(x) for x in to]))
            continue
        delta = ord(to) - c
        if runs and runs[-1][3] == delta:
            first, last, step, _ = runs[-1]
            gap = c - last
            if gap in (1, 2) and (first == last or gap == step):
                runs[-1] = [first, c, gap, delta]
                continue
        runs.append([c, c, 1, delta])
    return runs, special


def rows(items, width=6):
    items = list(items)
    return "\n".join("    " + " ".join(items[i:i + width]) for i in range(0, len(items), width))


def digests():
    """One SHA-256 per function, over the answers for all code points but the surrogates, in order."""
    points = [chr(c) for c in ALL if not 0xD800 <= c <= 0xDFFF]

    def sha(answers):
        return hashlib.sha256("".join(answers).encode()).hexdigest()

    word = re.compile(r"\w")
    return {
        "lower": sha(c.lower() + "\n" for c in points),
        "upper": sha(c.upper() + "\n" for c in points),
        "space": sha("1" if c.isspace() else "0" for c in points),
        "word": sha("1" if word.match(c) else "0" for c in points),
        "digit": sha(str(unicodedata.decimal(c, "-")) for c in points),
        "sigma_before": sha((c + "\u03a3").lower() + "\n" for c in points),
        "sigma_between": sha(("A" + c + "\u03a3").lower() + "\n" for c in points),
        "sigma_after": sha(("A\u03a3" + c).lower() + "\n" for c in points),
    }


def main():
    word = re.compile(r"\w")
    out = [f"// Made by scripts/make_unicode_tables.py from Python {sys.version_info[0]}.{sys.version_info[1]}"
           f" (Unicode {unicodedata.unidata_version}). Do not edit."]

    def table(name, found):
        out.append(f"constexpr Range {name}[] = {{")
        out.append(rows(f"{{0x{a:X}, 0x{b:X}}}," for a, b in found))
        out.append("};")

    table("word_ranges", ranges(lambda ch: word.match(ch) is not None))
    # Python's str.lower() looks at these two classes around a capital sigma; probe it rather than restate it.
    table("ignorable_ranges",
          ranges(lambda ch: ("A" + ch + "\u03a3").lower().endswith("\u03c2") and not (ch + "\u03a3").lower().endswith("\u03c2")))
    table("cased_ranges", ranges(lambda ch: (ch + "\u03a3").lower().endswith("\u03c2")))
    zeros = [c for c in ALL if unicodedata.decimal(chr(c), None) == 0]
    for z in zeros:
        assert all(unicodedata.decimal(chr(z + d), None) == d for d in range(10))
    assert sum(1 for c in ALL if unicodedata.decimal(chr(c), None) is not None) == 10 * len(zeros)
    out.append("constexpr char32_t digit_zeros[] = {")
    out.append(rows((f"0x{z:X}," for z in zeros), 12))
    out.append("};")
    for name, change in (("lower", str.lower), ("upper", str.upper)):
        runs, special = case_runs(change)
        out.append(f"constexpr CaseRun {name}_runs[] = {{")
        out.append(rows((f"{{0x{a:X}, 0x{b:X}, {s}, {d}}}," for a, b, s, d in runs), 5))
        out.append("};")
        out.append(f"constexpr CaseSpecial {name}_special[] = {{")
        out.append(rows((f"{{0x{c:X}, {{{', '.join(f'0x{x:X}' for x in (to + [0, 0])[:3])}}}}}," for c, to in special), 4))
        out.append("};")
    OUT.write_text("\n".join(out) + "\n")
    DIGESTS.write_text(json.dumps(digests(), indent=1) + "\n")
    print(OUT, OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
