#!/usr/bin/env python3
"""Trains the adapter that lets SmolLM2-135M-Instruct (8K tokens of context) retrieve from 128K.

    scripts/train_long_context.py --model DIR --data DATA --out ADAPTER --stages 65536:1:40,131072:1:64 [--from ADAPTER]

DIR is a Llama folder with tied embeddings, as `scripts/fetch_model.py smollm2-135m-instruct` leaves it; DATA is what
scripts/long_context_data.py made of this project's tasks and prose. A stage is LENGTH:BATCH:STEPS; the sequences of a
length are used in their order, each once. Trained are a LoRA on every linear layer and the norms; the RoPE base is
raised before the first step. ADAPTER becomes a folder in PEFT's form (adapter_config.json, adapter_model.safetensors),
which fetch_model.py --adapter merges. --from goes on from such a folder. log.jsonl beside it has a line per step.

Several GPUs of one host: `python -m torch.distributed.run --standalone --nproc-per-node 2 scripts/train_long_context.py
...`; BATCH is then the sequences of one GPU, and a step is as with all of them in one batch.

Needs Python packages that the set-up does not bring: torch as it comes from PyPI (with CUDA for anything but a try),
safetensors, numpy. At 131,072 tokens it takes 21 GiB of GPU memory.
"""
import argparse
import json
import math
import os
import pathlib
import sys
import time

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

ANSWER, TEXT = 1, 2  # kinds of tokens, as in long_context_data.py
PROJECTIONS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
               "mlp.up_proj", "mlp.down_proj")
NORMS = ("input_layernorm", "post_attention_layernorm")
PREFIX = "base_model.model."  # of PEFT's tensor names
LOGIT_ROWS = 8192  # positions whose logits are held at a time
TOKENS_AT_ONCE = 32768  # short sequences of a batch go through together up to this


def die(message):
    sys.exit(f"train_long_context: {message}")


class Ranks:
    """The processes that train together, one per GPU; alone without torch.distributed.run."""

    def __init__(self, cpu):
        self.size, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        self.device = "cpu" if cpu else torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        if not cpu:
            torch.cuda.set_device(self.device)
        if self.size > 1:
            dist.init_process_group("gloo" if cpu else "nccl")

    def sums(self, *numbers):
        """Each number summed over the ranks."""
        t = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        if self.size > 1:
            dist.all_reduce(t)
        return t.tolist()

    def sum_gradients(self, parameters):
        if self.size == 1:
            return
        for p in parameters:
            if p.grad is None:  # this rank's sequences had nothing to learn
                p.grad = torch.zeros_like(p)
        flat = torch.cat([p.grad.flatten() for p in parameters])
        dist.all_reduce(flat)
        for p, part in zip(parameters, flat.split([p.numel() for p in parameters])):
            p.grad.copy_(part.view_as(p))


class Model:
    """A Llama decoder: frozen weights of the folder, trained tensors under the names that the adapter has."""

    def __init__(self, folder, settings, device, dtype):
        """`settings`: the adapter's configuration (r, lora_alpha, rope_theta)."""
        try:
            self.config = c = json.loads((folder / "config.json").read_text())
            weights = load_file(folder / "model.safetensors")
        except (OSError, ValueError) as e:
            die(f"{folder}: {e}")
        if c["model_type"] != "llama" or not c["tie_word_embeddings"] or c.get("rope_scaling"):
            die(f"{folder}: should be a Llama with tied embeddings and unscaled RoPE")
        self.base = {name: w.to(device, dtype) for name, w in weights.items()}
        self.device, self.dtype = device, dtype
        self.heads, self.kv_heads = c["num_attention_heads"], c["num_key_value_heads"]
        self.dim = c.get("head_dim") or c["hidden_size"] // self.heads
        self.eps, self.rope_base = c["rms_norm_eps"], settings["rope_theta"]
        self.scale = settings["lora_alpha"] / settings["r"]
        self.trained = {}
        for layer in range(c["num_hidden_layers"]):
            at = f"model.layers.{layer}."
            for name in PROJECTIONS:
                rows, cols = weights[f"{at}{name}.weight"].shape
                self.add(f"{at}{name}.lora_A.weight", torch.randn(settings["r"], cols) / math.sqrt(cols))
                self.add(f"{at}{name}.lora_B.weight", torch.zeros(rows, settings["r"]))
            for name in NORMS:
                self.add(f"{at}{name}.weight", weights[f"{at}{name}.weight"])
        self.add("model.norm.weight", weights["model.norm.weight"])

    def add(self, name, value):
        self.trained[name] = value.to(self.device, torch.float32).requires_grad_()

    def load(self, tensors):
        """Takes the trained tensors of an adapter."""
        for name, p in self.trained.items():
            value = tensors.pop(PREFIX + name, None)
            if value is None or value.shape != p.shape:
                die(f"--from: {PREFIX + name} should have shape {list(p.shape)}, " +
                    ("is missing" if value is None else f"has {list(value.shape)}"))
            with torch.no_grad():
                p.copy_(value)
        if tensors:
            die(f"--from: this model has no place for {', '.join(list(tensors)[:3])}")

    def linear(self, x, name):
        """The product with the merged weight, rounded as fetch_model.py rounds it."""
        delta = self.trained[f"{name}.lora_B.weight"] @ self.trained[f"{name}.lora_A.weight"]
        return F.linear(x, (self.base[f"{name}.weight"].float() + self.scale * delta).to(self.dtype))

    def norm(self, x, name):
        return F.rms_norm(x, x.shape[-1:], self.trained[f"{name}.weight"].to(self.dtype), self.eps)

    def before_attention(self, x, at, cos, sin):
        """Rotated queries, rotated keys, values: [batch, heads, tokens, dim]."""
        h = self.norm(x, f"{at}input_layernorm")

        def heads(which):
            return self.linear(h, f"{at}self_attn.{which}_proj").unflatten(-1, (-1, self.dim)).transpose(1, 2)

        def rotate(t):
            a, b = t.float().chunk(2, -1)
            return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(self.dtype)

        return rotate(heads("q")), rotate(heads("k")), heads("v")

    def after_attention(self, x, attended, at):
        x = x + self.linear(attended.transpose(1, 2).flatten(-2), f"{at}self_attn.o_proj")
        h = self.norm(x, f"{at}post_attention_layernorm")
        gated = F.silu(self.linear(h, f"{at}mlp.gate_proj")) * self.linear(h, f"{at}mlp.up_proj")
        return x + self.linear(gated, f"{at}mlp.down_proj")

    def hidden(self, ids):
        """Normalised last hidden states of ids [batch, tokens]. At long lengths attention is nearly all of the time and
        little of the memory, so it alone is not computed again in the backward pass."""
        exponents = torch.arange(0, self.dim, 2, device=self.device, dtype=torch.float64) / self.dim
        angles = torch.outer(torch.arange(ids.shape[1], device=self.device, dtype=torch.float64),
                             self.rope_base**-exponents)
        cos, sin = angles.cos().float(), angles.sin().float()
        x = F.embedding(ids, self.base["model.embed_tokens.weight"])
        for layer in range(self.config["num_hidden_layers"]):
            at = f"model.layers.{layer}."
            q, k, v = checkpoint(self.before_attention, x, at, cos, sin, use_reentrant=False)
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            x = checkpoint(self.after_attention, x, attended, at, use_reentrant=False)
        return self.norm(x, "model.norm")

    def nll(self, hidden, targets):
        """NLL [n] of the targets and whether each was the best token [n]; hidden [n, size]."""
        def rows(h, t):
            logits = F.linear(h, self.base["model.embed_tokens.weight"]).float()
            return F.cross_entropy(logits, t, reduction="none"), logits.detach().argmax(-1) == t

        parts = [checkpoint(rows, h, t, use_reentrant=False)
                 for h, t in zip(hidden.split(LOGIT_ROWS), targets.split(LOGIT_ROWS))]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


class Data:
    """The sequences of DATA/LENGTH.npz, handed out in order."""

    def __init__(self, folder, stages, ranks):
        self.files, self.at, self.ranks = {}, {}, ranks
        for length in {s[0] for s in stages}:
            path = folder / f"{length}.npz"
            try:
                with np.load(path) as z:
                    self.files[length] = {name: z[name] for name in ("ids", "kinds", "tasks")}
            except (OSError, KeyError, ValueError) as e:
                die(f"{path}: {e}; scripts/long_context_data.py makes it")
            need = ranks.size * sum(b * n for l, b, n in stages if l == length)
            have = len(self.files[length]["ids"])
            if need > have:
                die(f"{path} holds {have} sequences, the stages need {need}")
            self.at[length] = 0

    def batch(self, length, size):
        """This rank's ids and kinds [size, length], names of the tasks."""
        f, at, device = self.files[length], self.at[length] + self.ranks.rank * size, self.ranks.device
        self.at[length] += self.ranks.size * size
        ids = torch.from_numpy(f["ids"][at:at + size].astype(np.int64))
        return ids.to(device), torch.from_numpy(f["kinds"][at:at + size]).to(device), list(f["tasks"][at:at + size])


def step_losses(model, ids, kinds, text_weight, ranks):
    """Backward pass of one batch. Returns, over all ranks, the mean NLL of answers, that of text, answers that are right
    as a whole, and answers."""
    wanted = F.pad(kinds[:, 1:], (0, 1))  # what position i has to predict
    total = dict(zip((ANSWER, TEXT), ranks.sums(*(int((wanted == kind).sum()) for kind in (ANSWER, TEXT)))))
    sums, right, answers = {ANSWER: 0.0, TEXT: 0.0}, 0, 0
    together = max(1, TOKENS_AT_ONCE // ids.shape[1])
    for i, w in zip(ids.split(together), wanted.split(together)):
        here = (w > 0).nonzero(as_tuple=True)
        kind = w[here]
        if not len(kind):
            continue
        nll, best = model.nll(model.hidden(i)[here], i.roll(-1, 1)[here])
        loss = 0.0
        for k, weight in ((ANSWER, 1.0), (TEXT, text_weight)):
            part = nll[kind == k].sum()
            sums[k] += part.item()
            loss = loss + weight * part / max(1, total[k])
        loss.backward()
        run = ((w == ANSWER) & (F.pad(w[:, :-1], (1, 0)) != ANSWER)).flatten().cumsum(0).view_as(w)[here] - 1
        of_answers = kind == ANSWER
        if n := int(of_answers.sum()):
            wrong = torch.zeros(int(run[of_answers].max()) + 1, device=ids.device)
            wrong.index_add_(0, run[of_answers], (~best[of_answers]).float())
            right, answers = right + int((wrong == 0).sum()), answers + len(wrong)
    *sums, right, answers = ranks.sums(sums[ANSWER], sums[TEXT], right, answers)
    return (*(nll / total[k] if total[k] else None for nll, k in zip(sums, (ANSWER, TEXT))), int(right), int(answers))


def export(model, settings, folder):
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {PREFIX + n: p.detach().to("cpu", torch.bfloat16).contiguous() for n, p in model.trained.items()}
    part = folder / "adapter_model.part"
    save_file(tensors, part, metadata={"format": "pt"})
    part.chmod(0o644)
    part.rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")


def stage_list(text):
    """'4096:16:120,...' -> [(length, batch, steps)]"""
    stages = [tuple(int(n) for n in s.split(":")) for s in text.split(",")]
    if any(len(s) != 3 or min(s) < 1 for s in stages):
        raise ValueError
    return stages


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", required=True, type=pathlib.Path, metavar="DIR", help="Hugging Face folder of the base model")
    add("--data", required=True, type=pathlib.Path, metavar="DATA", help="folder of LENGTH.npz")
    add("--out", required=True, type=pathlib.Path, metavar="ADAPTER", help="folder to write")
    add("--from", dest="start", type=pathlib.Path, metavar="ADAPTER", help="adapter to go on from (same base model)")
    add("--stages", required=True, type=stage_list, metavar="LENGTH:BATCH:STEPS,...")
    add("--lr", type=float, default=1e-3, help="of the LoRA; the norms get a tenth (%(default)s)")
    add("--warm-up", type=int, default=20, metavar="STEPS")
    add("--minutes", type=float, help="end early, the learning rate's decay with it")
    add("--text-weight", type=float, default=0.3, help="of the mean NLL of text beside that of answers (%(default)s)")
    add("--rank", type=int, default=16, help="of a new adapter (%(default)s)")
    add("--rope-base", type=float, default=8e6, help="of a new adapter (%(default)s)")
    add("--save-every", type=int, default=20, metavar="STEPS", help="write the adapter so far (%(default)s)")
    add("--seed", type=int, default=0)
    add("--cpu", action="store_true", help="float32 on the CPU: for a try")
    return parser.parse_args()


def adapter_settings(args):
    """The adapter's configuration and, with --from, its tensors."""
    longest = max(length for length, _, _ in args.stages)
    if not args.start:
        return {"peft_type": "LORA", "task_type": "CAUSAL_LM",
                "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct", "r": args.rank,
                "lora_alpha": args.rank, "lora_dropout": 0.0, "bias": "none",
                "target_modules": [p.split(".")[1] for p in PROJECTIONS], "modules_to_save": [*NORMS, "norm"],
                "rope_theta": args.rope_base, "max_position_embeddings": longest}, None
    try:
        settings = json.loads((args.start / "adapter_config.json").read_text())
        tensors = load_file(args.start / "adapter_model.safetensors")
    except (OSError, ValueError) as e:
        die(f"--from {args.start}: {e}")
    settings["max_position_embeddings"] = max(longest, settings["max_position_embeddings"])
    return settings, tensors


def main():
    args = arguments()
    began = time.monotonic()
    if not args.cpu and not torch.cuda.is_available():
        die("no CUDA device; --cpu tries a few steps at small lengths")
    ranks = Ranks(args.cpu)
    first = ranks.rank == 0
    torch.manual_seed(args.seed)
    settings, tensors = adapter_settings(args)
    data = Data(args.data, args.stages, ranks)
    model = Model(args.model, settings, ranks.device, torch.float32 if args.cpu else torch.bfloat16)
    if tensors:
        model.load(tensors)
    groups = [{"params": [p for p in model.trained.values() if (p.ndim > 1) == lora], "top": args.lr * share}
              for lora, share in ((True, 1.0), (False, 0.1))]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.95), weight_decay=0.0)
    fast = [SDPBackend.MATH] if args.cpu else [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION]

    trained = list(model.trained.values())
    plan = [(length, batch) for length, batch, steps in args.stages for _ in range(steps)]
    args.out.mkdir(parents=True, exist_ok=True)
    log_file = args.out / "log.jsonl" if first else os.devnull
    with open(log_file, "w", encoding="utf-8") as log, sdpa_kernel(fast, set_priority=True):
        for step, (length, batch) in enumerate(plan):
            clock = (time.monotonic() - began) / (60 * args.minutes) if args.minutes else 0.0
            clock = ranks.sums(clock)[0] / ranks.size  # all have to end at the same step
            if clock >= 1:
                if first:
                    print(f"the {args.minutes:g} minutes are over after {step} of {len(plan)} steps", flush=True)
                break
            done = max(step / len(plan), clock)
            factor = min(1.0, (step + 1) / args.warm_up) * (0.05 + 0.95 * (0.5 + 0.5 * math.cos(math.pi * done)))
            for group in optimizer.param_groups:
                group["lr"] = group["top"] * factor
            ids, kinds, tasks = data.batch(length, batch)
            answer, text, right, answers = step_losses(model, ids, kinds, args.text_weight, ranks)
            ranks.sum_gradients(trained)
            norm = float(torch.nn.utils.clip_grad_norm_(trained, 1.0))
            if not math.isfinite(norm):
                die(f"step {step + 1}: the gradient is not finite")
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            line = {"step": step + 1, "tokens": length, "tasks": tasks, "answer_nll": answer, "text_nll": text,
                    "right": right, "answers": answers, "gradient": norm, "lr": args.lr * factor,
                    "seconds": time.monotonic() - began}
            log.write(json.dumps(line) + "\n")
            log.flush()
            if not first:
                continue
            shown = " ".join(f"{name} {v:.3f}" for name, v in (("answer", answer), ("text", text)) if v is not None)
            print(f"step {step + 1}/{len(plan)} {length}x{batch} {'+'.join(sorted(set(tasks)))}: {shown}, "
                  f"{right}/{answers} right, gradient {norm:.2f}, {line['seconds']:.0f} s", flush=True)
            if (step + 1) % args.save_every == 0:
                export(model, settings, args.out)
    if first:
        export(model, settings, args.out)
        if not args.cpu:
            print(f"most GPU memory in use: {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
        print(args.out)
    if ranks.size > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
