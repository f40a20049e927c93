#!/usr/bin/env python3
"""How alike the heads are that a SharePrefill calibration put into one cluster, on the prompts it saw and on others.

  prefillbench capture --model M --prompt-file P.txt --layers 0,1,...,29 --max-tokens 4096 --out P.safetensors   (each prompt)
  scripts/share_study.py --lookup LOOKUP.json --captures P.safetensors Q.safetensors ... --figure docs/figures/shareprefill-heads.png

A head's pattern on a prompt is what SharePrefill makes of a pivot: per row of blocks the fewest that hold 90 % of the
attention. Prints a markdown table of Jaccard indices. Needs torch, safetensors, numpy, matplotlib.
"""
import argparse
import itertools
import json
import pathlib
import re

import numpy as np
import torch
from safetensors import safe_open


def patterns(path, block, share):
    """Bool [layers * heads, cells], layers ascending: the blocks of every head."""
    out = []
    with safe_open(path, "pt") as f:
        layers = sorted(int(m.group(1)) for key in f.keys() if (m := re.fullmatch(r"layer\.(\d+)\.q", key)))
        for layer in layers:
            q, k = f.get_tensor(f"layer.{layer}.q").float(), f.get_tensor(f"layer.{layer}.k").float()
            heads, n, dim = q.shape
            n -= n % block
            for h in range(heads):
                key = k[h // (heads // k.shape[0]), :n]
                mass = torch.zeros(n // block, n // block)
                for first in range(0, n, 8 * block):  # bands of queries, over the keys that they see
                    end = min(first + 8 * block, n)
                    logits = q[h, first:end] @ key[:end].T / dim**0.5
                    logits[:, first:].masked_fill_(torch.ones(end - first, end - first, dtype=torch.bool).triu(1), -torch.inf)
                    probs = logits.softmax(-1).view((end - first) // block, block, end // block, block)
                    mass[first // block:end // block, :end // block] = probs.mean(1).sum(2)
                value, order = mass.sort(-1, descending=True)
                keep = (value.cumsum(-1) - value < share) & (value > 0)
                out.append(torch.zeros_like(keep).scatter(1, order, keep).flatten().numpy())
    return np.stack(out), heads


def jaccard(a, b):
    """[n, m] between the rows of two bool matrices."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    both = a @ b.T
    return both / np.maximum(a.sum(1)[:, None] + b.sum(1)[None, :] - both, 1)


def read_clusters(path, heads):
    file = json.loads(pathlib.Path(path).read_text())
    file = file.get("content", file)
    shared = [[layer * heads + head for layer, head in file["clusters"][c]] for c in file["shared_clusters"]]
    return sorted(shared, key=len, reverse=True)


def figure(path, names, matrices, order, groups):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 8})
    fig, axes = plt.subplots(1, len(names) + 1, figsize=(3.1 * (len(names) + 1), 3.2), layout="constrained")
    for axis, name, m in zip(axes, names, matrices):
        image = axis.imshow(m[np.ix_(order, order)], vmin=0, vmax=1, cmap="Blues", interpolation="nearest")
        axis.set_title(name)
        axis.set_xlabel("head, by cluster")
        at = 0
        for size in groups:
            if size > 2:
                axis.add_patch(plt.Rectangle((at - 0.5, at - 0.5), size, size, fill=False, edgecolor="#d55e00", linewidth=0.8))
            at += size
    axes[0].set_ylabel("head, by cluster")
    fig.colorbar(image, ax=axes[:-1], shrink=0.7, label="Jaccard index of the patterns")
    label = np.full(matrices[0].shape[0], -1)
    at = 0
    for c, size in enumerate(groups):
        label[order[at:at + size]] = c
        at += size
    same = (label[:, None] == label[None, :]) & (label[:, None] >= 0) & np.triu(np.ones_like(matrices[0], bool), 1)
    other = np.triu(np.ones_like(matrices[0], bool), 1) & ~same
    bins = np.linspace(0, 1, 41)
    for name, m, style in zip(names, matrices, ("-", "--", "-.", ":")):
        axes[-1].hist(m[same], bins, histtype="step", density=True, color="#d55e00", linestyle=style, label=f"same cluster, {name}")
        axes[-1].hist(m[other], bins, histtype="step", density=True, color="#666666", linestyle=style, label=f"other pairs, {name}")
    axes[-1].set_xlabel("Jaccard index")
    axes[-1].set_ylabel("density of pairs")
    axes[-1].legend(fontsize=5.5, frameon=False)
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lookup", required=True)
    parser.add_argument("--captures", nargs="+", required=True, help="all layers of a prompt each; equal lengths")
    parser.add_argument("--block", type=int, default=64)
    parser.add_argument("--share", type=float, default=0.9)
    parser.add_argument("--figure")
    args = parser.parse_args()
    names = [pathlib.Path(c).stem for c in args.captures]
    maps = []
    for capture in args.captures:
        rows, heads = patterns(capture, args.block, args.share)
        maps.append(rows)
    clusters = read_clusters(args.lookup, heads)
    sharing = sum(map(len, clusters))
    print(f"{len(clusters)} clusters of more than one layer hold {sharing} of {len(maps[0])} heads; sizes {[len(c) for c in clusters]}\n")
    print("| prompt | same cluster | pivot and borrower | other pairs | density of a pattern |\n|---|---|---|---|---|")
    triangle = sum(range(1, int(maps[0].shape[1]**0.5) + 1))
    matrices = [jaccard(m, m) for m in maps]
    for name, rows, m in zip(names, maps, matrices):
        pairs = [m[a, b] for c in clusters for a, b in itertools.combinations(c, 2)]
        lent = [m[min(c), b] for c in clusters for b in c if b // heads > min(c) // heads]
        together = {(a, b) for c in clusters for a, b in itertools.combinations(sorted(c), 2)}
        other = [m[a, b] for a, b in itertools.combinations(range(len(m)), 2) if (a, b) not in together]
        print(f"| {name} | {np.mean(pairs):.3f} | {np.mean(lent):.3f} | {np.mean(other):.3f} | {rows.sum(1).mean() / triangle:.3f} |")
    print("\n| the same head on two prompts | Jaccard | correlation of the head-to-head matrices |\n|---|---|---|")
    upper = np.triu_indices(len(maps[0]), 1)
    for i, j in itertools.combinations(range(len(maps)), 2):
        own = np.diag(jaccard(maps[i], maps[j])).mean()
        print(f"| {names[i]}, {names[j]} | {own:.3f} | {np.corrcoef(matrices[i][upper], matrices[j][upper])[0, 1]:.3f} |")
    if args.figure:
        inside = [h for c in clusters for h in sorted(c)]
        order = inside + [h for h in range(len(maps[0])) if h not in set(inside)]
        shown = [0, len(names) - 1] if len(names) > 1 else [0]
        figure(args.figure, [names[i] for i in shown], [matrices[i] for i in shown], order, [len(c) for c in clusters])


if __name__ == "__main__":
    main()
