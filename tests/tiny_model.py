"""Random checkpoints as Hugging Face folders, by the standard library alone."""
import array
import json
import random


def write_checkpoint(folder, **changes):
    """config.json and model.safetensors of one random layer: 2 query heads on 1 key/value head of 16, hidden size 32. `changes`
    go into the config; a Qwen2 gets its biases, a Qwen3 its norms of queries and keys."""
    hidden, inner = 32, 48
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": 1,
              "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 257, "max_position_embeddings": 4096,
              "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": True, "eos_token_id": 256, **changes}
    (folder / "config.json").write_text(json.dumps(config))
    rng = random.Random(3)
    p, vocab = "model.layers.0.", config["vocab_size"]
    shapes = {"model.embed_tokens.weight": [vocab, hidden], "model.norm.weight": [hidden], p + "input_layernorm.weight": [hidden],
              p + "post_attention_layernorm.weight": [hidden], p + "self_attn.q_proj.weight": [32, hidden], p + "self_attn.k_proj.weight": [16, hidden],
              p + "self_attn.v_proj.weight": [16, hidden], p + "self_attn.o_proj.weight": [hidden, 32], p + "mlp.gate_proj.weight": [inner, hidden],
              p + "mlp.up_proj.weight": [inner, hidden], p + "mlp.down_proj.weight": [hidden, inner]}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = [vocab, hidden]
    if config["model_type"] == "qwen2":
        shapes.update({f"{p}self_attn.{n}_proj.bias": [size] for n, size in (("q", 32), ("k", 16), ("v", 16))})
    if config["model_type"] == "qwen3":
        shapes.update({f"{p}self_attn.{n}_norm.weight": [16] for n in "qk"})
    header, blob = {}, b""
    for name, shape in shapes.items():
        n = shape[0] * (shape[1] if len(shape) > 1 else 1)
        values = array.array("f", (1.0 if name.endswith("norm.weight") else rng.gauss(0, 0.1) for _ in range(n)))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(blob), len(blob) + 4 * n]}
        blob += values.tobytes()
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + blob)


def write_tiny_model(folder):
    """A random Llama with the 256 bytes and <end> as vocabulary, no merges; 4,096 tokens."""
    folder.mkdir()
    write_checkpoint(folder)
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
