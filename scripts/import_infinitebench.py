#!/usr/bin/env python3
"""Reads the prompt templates out of a checkout of OpenBMB/InfiniteBench into a local file.

    scripts/import_infinitebench.py CHECKOUT [--set yarn_mistral] [--out infinitebench-templates.json]

The official wording is not part of this project; with the file, the tasks infinitebench/* use it:

    workloads:
      - {task: infinitebench/passkey, tokens: 131072, params: {templates: infinitebench-templates.json}}

`src/prompt.py` is parsed, not run: only dictionaries of string literals are taken. Sets: yarn_mistral (what MInference,
SharePrefill and FlexPrefill use for every model), gpt4, claude2, kimi. Standard library only.
"""
import argparse
import ast
import hashlib
import json
import os
import pathlib
import subprocess
import sys

TASKS = ["passkey", "number_string", "kv_retrieval", "longbook_sum_eng", "longbook_choice_eng", "longbook_qa_eng", "longbook_qa_chn",
         "longdialogue_qa_eng", "math_find", "math_calc", "code_run", "code_debug"]


def literal(node):
    """The string of a literal, of literals joined by +, or None."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = literal(node.left), literal(node.right)
        return None if left is None or right is None else left + right
    return None


def template_sets(source, name):
    """{set: {task: template}} of the module-level dictionaries called *_templates."""
    sets = {}
    for node in ast.parse(source, name).body:
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict) and isinstance(node.targets[0], ast.Name)):
            continue
        if not node.targets[0].id.endswith("_templates"):
            continue
        found = {literal(k): literal(v) for k, v in zip(node.value.keys, node.value.values) if k is not None}
        sets[node.targets[0].id.removesuffix("_templates")] = {k: v for k, v in found.items() if k in TASKS and v is not None}
    return sets


def revision(checkout):
    done = subprocess.run(["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("checkout", type=pathlib.Path, help="folder of the official repository")
    p.add_argument("--set", default="yarn_mistral", help="yarn_mistral (default), gpt4, claude2, kimi")
    p.add_argument("--out", type=pathlib.Path, default=pathlib.Path("infinitebench-templates.json"))
    args = p.parse_args()
    path = args.checkout / "src" / "prompt.py"
    try:
        source = path.read_bytes()
        sets = template_sets(source, str(path))
    except (OSError, SyntaxError, ValueError) as e:
        sys.exit(f"import_infinitebench.py: {path}: {e}")
    if args.set not in sets:
        sys.exit(f"import_infinitebench.py: {path}: has no set '{args.set}'; there are: {', '.join(sorted(sets)) or 'none'}")
    templates = sets[args.set]
    missing = [t for t in TASKS if t not in templates]
    out = {"set": args.set, "revision": revision(args.checkout), "sha256": hashlib.sha256(source).hexdigest(), "templates": templates}
    scratch = args.out.with_name(args.out.name + ".part")
    scratch.write_text(json.dumps(out, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    os.replace(scratch, args.out)
    print(f"{args.out}: {len(templates)} templates of set {args.set}" + (f"; none for {', '.join(missing)}" if missing else ""))


if __name__ == "__main__":
    main()
