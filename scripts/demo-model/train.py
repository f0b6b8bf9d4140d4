"""Trains the demo model on a CPU.

    python train.py tokenizer [--documents N]       → out/tokenizer.json
    python train.py base      [--steps N]           → out/base.pt
    python train.py adapter VERSION [--steps N]     → out/VERSION.pt

Documents are packed into rows; a token sees only its own document; the loss is on answers alone.
"""

import argparse
import math
import random
import time
from pathlib import Path
from typing import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

import corpus
import tokenizer
from muon import Muon
from network import Network, Shape

ROWS, LENGTH = 16, 256
WARM_UP = 30  # steps
BASE_STEPS, ADAPTER_STEPS = 2400, {"v1.0": 250, "v1.1": 250, "v2.0": 300}
MUON_RATE, ADAM_RATE = 0.02, 4e-3
RANK, ALPHA = 8, 16.0
REPORT_EVERY = 20

Document = list[corpus.Segment]
Make = Callable[[random.Random], Document]


class Packer:
    """Fills rows with documents."""

    def __init__(self, tok: tokenizer.Tokenizer, make: Make, seed: int):
        self.tok, self.make, self.random = tok, make, random.Random(seed)

    def document(self, limit: int) -> tuple[list[int], list[bool]]:
        ids, learned = [], []
        if self.random.random() < 0.9:  # the rest teaches to do without
            ids, learned = [tokenizer.BOS], [False]
        for segment in self.make(self.random):
            piece = self.tok.encode(segment.text)
            ids += piece
            learned += [segment.learned] * len(piece)
        return ids[:limit], learned[:limit]

    def batch(self, rows: int, length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Token ids, attention mask, flat positions with a loss, and the token that follows each."""
        ids = torch.full((rows, length), tokenizer.PAD)
        learned = torch.zeros(rows, length, dtype=torch.bool)
        owner = torch.zeros(rows, length, dtype=torch.long)  # number of the document, 0: none
        used = [0] * rows
        misfits = number = 0
        while misfits < 12:
            number += 1
            piece, flags = self.document(length)
            row = next((i for i, n in enumerate(used) if n + len(piece) <= length), None)
            if row is None:
                misfits += 1
                continue
            span = slice(used[row], used[row] + len(piece))
            ids[row, span], learned[row, span], owner[row, span] = torch.tensor(piece), torch.tensor(flags), number
            used[row] = span.stop
        visible = (owner[:, :, None] == owner[:, None, :]) & torch.ones(length, length, dtype=torch.bool).tril()
        mask = torch.zeros(rows, 1, length, length).masked_fill_(~visible[:, None], -1e9)
        follows = learned.roll(-1, 1) & (owner.roll(-1, 1) == owner)
        follows[:, -1] = False
        wanted = follows.flatten().nonzero().squeeze(1)
        return ids, mask, wanted, ids.roll(-1, 1).flatten()[wanted]


def share(step: int, steps: int) -> float:
    """Of the learning rate: up, then along a cosine down to 2 %."""
    return min(1.0, (step + 1) / WARM_UP) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / steps)))


def fit(net: Network, packer: Packer, steps: int, rows: int, adam: list, muon: list, long_tail: int = 0) -> None:
    """Trains the given parameters; the last long_tail steps see half as many rows of twice the length."""
    optimizer = torch.optim.AdamW(adam, lr=ADAM_RATE, betas=(0.9, 0.98), eps=1e-9, weight_decay=0.0)
    orthogonal = Muon(muon, MUON_RATE)
    started, losses = time.monotonic(), []
    for step in range(steps):
        size = (rows, LENGTH) if step < steps - long_tail else (rows // 2, 2 * LENGTH)
        ids, mask, wanted, target = packer.batch(*size)
        loss = F.cross_entropy(net(ids, mask, wanted), target)
        net.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*adam, *muon], 1.0)
        part = share(step, steps)
        for group in optimizer.param_groups:
            group["lr"] = ADAM_RATE * part
        optimizer.step()
        orthogonal.step(part)
        losses.append(loss.item())
        if (step + 1) % REPORT_EVERY == 0 or step + 1 == steps:
            recent = losses[-REPORT_EVERY:]
            print(f"step {step + 1} of {steps}, loss {sum(recent) / len(recent):.3f}, {time.monotonic() - started:.0f} s", flush=True)


def train_base(out: Path, steps: int) -> None:
    net = Network(Shape())
    hidden = [m.weight for m in net.matrices().values()]
    others = [p for p in net.parameters() if all(p is not h for h in hidden)]
    packer = Packer(tokenizer.Tokenizer(out / "tokenizer.json"), corpus.base_document, seed=0)
    fit(net, packer, steps, ROWS, adam=others, muon=hidden, long_tail=steps // 12)
    torch.save({"shape": net.shape.saved(), "weights": net.state_dict()}, out / "base.pt")


def train_adapter(out: Path, version: str, steps: int) -> None:
    saved = torch.load(out / "base.pt")
    net = Network(Shape(**saved["shape"]))
    net.load_state_dict(saved["weights"])
    net.requires_grad_(False)
    added = [p for m in net.matrices().values() for p in m.adapt(RANK, ALPHA)]
    packer = Packer(tokenizer.Tokenizer(out / "tokenizer.json"), lambda r: corpus.adapter_document(r, version), seed=7)
    fit(net, packer, steps, ROWS // 2, adam=added, muon=[])
    matrices = {name: (m.a.detach(), m.b.detach()) for name, m in net.matrices().items()}
    torch.save({"alpha": ALPHA, "matrices": matrices}, out / f"{version}.pt")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, default=Path("out"))
    p.add_argument("--threads", type=int, default=1)
    what = p.add_subparsers(dest="what", required=True)
    what.add_parser("tokenizer").add_argument("--documents", type=int, default=60_000)
    what.add_parser("base").add_argument("--steps", type=int, default=BASE_STEPS)
    adapter = what.add_parser("adapter")
    adapter.add_argument("version", choices=corpus.STYLES[1:])
    adapter.add_argument("--steps", type=int)
    a = p.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(a.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    if a.what == "tokenizer":
        tokenizer.train(a.out / "tokenizer.json", a.documents)
    elif a.what == "base":
        train_base(a.out, a.steps)
    else:
        train_adapter(a.out, a.version, a.steps or ADAPTER_STEPS[a.version])


if __name__ == "__main__":
    main()
