#!/usr/bin/env python3
"""All twelve InfiniteBench tasks from a made-up official checkout and made-up data, through import, run, score and report.

    python3 tests/tasks/end_to_end.py PREFILLBENCH

The model is a random one-layer Llama with a byte-level tokenizer, written here; what it answers does not matter, only that
every task comes out with the prompt, label and score that the rules give. Standard library only.
"""
import array
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
OPTIONS = ["alpha", "beta", "gamma", "delta"]
ROWS = {  # task: fields of a row; the label that predictions are scored against
    "passkey": ({"input": "What is it?", "answer": ["71432"]}, ["71432"]),
    "number_string": ({"input": "Which?", "answer": ["3000077442"]}, ["3000077442"]),
    "kv_retrieval": ({"input": "\nKey: \"k\"\nis: ", "answer": "v"}, "v"),
    "longbook_sum_eng": ({"input": "", "answer": ["A cat sat."]}, ["A cat sat."]),
    "longbook_choice_eng": ({"input": "Who?", "answer": ["gamma"], "options": OPTIONS}, ["gamma", "C"]),
    "longbook_qa_eng": ({"input": "Who?", "answer": ["a", "b"]}, ["a", "b"]),
    "longbook_qa_chn": ({"input": "\u8c01", "answer": ["\u6211"]}, ["\u6211"]),
    "longdialogue_qa_eng": ({"input": "", "answer": ["ACE"]}, ["ACE"]),
    "math_find": ({"input": "The largest number of the list is: ", "answer": [12]}, [12]),
    "math_calc": ({"input": "", "answer": [4, 8]}, [4, 8]),
    "code_run": ({"input": "What is func_12(-3)?", "answer": [5]}, [5]),
    "code_debug": ({"input": "", "answer": "beta", "options": OPTIONS}, ["beta", "B"]),
}


def checkout(folder):
    slots = {"math_find": "{prefix} {context} {input}", "math_calc": "{context} Values:", "code_run": "{func} {context} {func_call}"}
    four = " A. {OPTION_A} B. {OPTION_B} C. {OPTION_C} D. {OPTION_D}"
    slots.update({"longbook_choice_eng": "{context} {question}" + four, "code_debug": "{context}" + four, "longbook_sum_eng": "{context} Sum:",
                  "longdialogue_qa_eng": "{context} Name:", "longbook_qa_eng": "{context} {question}", "longbook_qa_chn": "{context} {question}"})
    (folder / "src").mkdir(parents=True)
    lines = [f"    {task!r}: {'MADE UP ' + slots.get(task, '{context} {input}')!r},  # noqa" for task in ROWS]
    (folder / "src/prompt.py").write_text("yarn_mistral_templates = {\n" + "\n".join(lines) + "\n}\n", encoding="utf-8")


def data(folder):
    folder.mkdir()
    for task, (fields, _) in ROWS.items():
        with open(folder / f"{task}.jsonl", "w", encoding="utf-8") as out:
            for i in range(2):  # the second is over the limit and loses its middle
                out.write(json.dumps({"id": 7, "context": "word " * (8 if i == 0 else 200), **fields}, ensure_ascii=False) + "\n")


def model(folder):
    """A Hugging Face folder: one layer, 256 bytes as vocabulary, no merges."""
    folder.mkdir()
    hidden, vocab, inner = 32, 257, 48
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": 1,
              "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": vocab, "max_position_embeddings": 4096,
              "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": True, "eos_token_id": 256}
    (folder / "config.json").write_text(json.dumps(config))
    rng = random.Random(3)
    p = "model.layers.0."
    shapes = {"model.embed_tokens.weight": [vocab, hidden], "model.norm.weight": [hidden], p + "input_layernorm.weight": [hidden],
              p + "post_attention_layernorm.weight": [hidden], p + "self_attn.q_proj.weight": [32, hidden], p + "self_attn.k_proj.weight": [16, hidden],
              p + "self_attn.v_proj.weight": [16, hidden], p + "self_attn.o_proj.weight": [hidden, 32], p + "mlp.gate_proj.weight": [inner, hidden],
              p + "mlp.up_proj.weight": [inner, hidden], p + "mlp.down_proj.weight": [hidden, inner]}
    header, blob = {}, b""
    for name, shape in shapes.items():
        n = shape[0] * (shape[1] if len(shape) > 1 else 1)
        values = array.array("f", (1.0 if len(shape) == 1 else rng.gauss(0, 0.1) for _ in range(n)))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(blob), len(blob) + 4 * n]}
        blob += values.tobytes()
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + blob)
    # the byte alphabet of GPT-2: printable bytes stand for themselves, the others for code points from 256 on
    plain = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    letters, more = {}, 256
    for b in range(256):
        letters[b] = chr(b) if b in plain else chr(more)
        more += b not in plain
    tokenizer = {"version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
                 "added_tokens": [{"id": 256, "content": "<end>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}],
                 "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
                 "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
                 "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                           "fuse_unk": False, "byte_fallback": False, "vocab": {letters[b]: b for b in range(256)}, "merges": []}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))


def call(*args, **kw):
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True, **kw)
    assert done.returncode == 0, f"{' '.join(map(str, args))}: exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def main():
    program = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        checkout(folder / "checkout")
        data(folder / "data")
        model(folder / "model")
        call(sys.executable, ROOT / "scripts/import_infinitebench.py", folder / "checkout", "--out", folder / "templates.json")
        workloads = "".join(f"  - {{task: infinitebench/{t}, tokens: 300, samples: 2, params: {{templates: templates.json, max_new_tokens: 4}}}}\n" for t in ROWS)
        (folder / "all.yaml").write_text(f"schema: 1\nname: all\nmodel: {folder / 'model'}\nbackend: cpu-ref\ndtype: float32\nworkloads:\n{workloads}"
                                         "methods:\n  - name: dense\n  - name: streaming\n    params: {sink: 64, local: 64}\n")
        env = {**os.environ, "PREFILLBENCH_INFINITEBENCH": str(folder / "data")}
        call(program, "run", folder / "all.yaml", "--results", folder / "results", env=env, cwd=folder)
        runs = [p.parent for p in (folder / "results").rglob("spec.json")]
        assert len(runs) == 24, f"{len(runs)} runs of 12 tasks x 2 methods"
        for run in runs:
            spec = json.loads((run / "spec.json").read_text())
            task = spec["workload"]["task"].split("/")[1]
            assert spec["workload"]["data"]["n"] == 2 and len(spec["workload"]["data"]["sha256"]) == 64, spec["workload"]
            rows = [json.loads(line) for log in run.glob("samples*.jsonl") for line in log.read_text(encoding="utf-8").splitlines()]
            rows = [r for r in rows if "prediction" in r]
            assert len(rows) == 2, f"{task}: {rows}"
            predictions = run / "predictions.jsonl"
            with open(predictions, "w", encoding="utf-8") as out:
                for r in rows:
                    assert r["answer"] == ROWS[task][1], f"{task}: label {r['answer']}"
                    out.write(json.dumps({"id": r.get("sample", 0), "prediction": r["prediction"], "ground_truth": r["answer"]}) + "\n")
            scored = json.loads(call(program, "score", "--task", f"infinitebench/{task}", "--predictions", predictions, "--per-example", "--json"))
            assert scored["per_example"] == [r["score"] for r in rows], f"{task}: run and score differ"
            predictions.unlink()
        report = call(program, "report", folder / "results", cwd=folder)
        for task in ROWS:
            assert task in report, f"the report leaves out {task}:\n{report}"
    print("12 tasks from import to report")


if __name__ == "__main__":
    main()
