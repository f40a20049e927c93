#!/usr/bin/env python3
"""A checkout with the official layout and made-up content goes through scripts/import_infinitebench.py."""
import json
import pathlib
import subprocess
import sys
import tempfile

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts/import_infinitebench.py"
PROMPT_PY = '''
import os
raise SystemExit("this file must be parsed, not run")
yarn_mistral_templates = {
    "passkey": "Find.\\n\\n{context}\\n\\n{input}\\n\\nKey:",  # noqa
    "longbook_sum_eng": "Sum up" + "{file:{context}}",
    'code_run': """{func} {func_call}""",
    "unknown_task": "x",
    "math_find": os.path.join("not", "a literal"),
}
other = {"passkey": "no"}
gpt4_templates = {"passkey": "\\u95ee"}
'''


def run(*args):
    return subprocess.run([sys.executable, str(SCRIPT), *map(str, args)], capture_output=True, text=True)


with tempfile.TemporaryDirectory() as folder:
    checkout, out = pathlib.Path(folder, "checkout"), pathlib.Path(folder, "t.json")
    (checkout / "src").mkdir(parents=True)
    (checkout / "src/prompt.py").write_text(PROMPT_PY, encoding="utf-8")
    done = run(checkout, "--out", out)
    assert done.returncode == 0, done.stderr
    got = json.loads(out.read_text(encoding="utf-8"))
    assert got["templates"] == {"passkey": "Find.\n\n{context}\n\n{input}\n\nKey:", "longbook_sum_eng": "Sum up{file:{context}}",
                                "code_run": "{func} {func_call}"}, got
    assert "math_find" in done.stdout, "what is missing is said"
    assert run(checkout, "--set", "gpt4", "--out", out).returncode == 0
    assert json.loads(out.read_text(encoding="utf-8"))["templates"] == {"passkey": "\u95ee"}
    bad = run(checkout, "--set", "gpt5", "--out", out)
    assert bad.returncode == 1 and "gpt4, yarn_mistral" in bad.stderr, bad.stderr
    bad = run(pathlib.Path(folder, "absent"), "--out", out)
    assert bad.returncode == 1 and bad.stderr.count("\n") == 1, bad.stderr
    (checkout / "src/prompt.py").write_text("yarn_mistral_templates = {", encoding="utf-8")
    assert run(checkout, "--out", out).returncode == 1
print("importer ok")
