"""Muon: momentum whose update is made orthogonal by a Newton-Schulz iteration. For hidden matrices; it learns this task in fewer steps than AdamW."""

import torch
from torch import Tensor

MOMENTUM = 0.95
DECAY = 0.01


def orthogonal(m: Tensor, rounds: int = 5) -> Tensor:
    """The nearest matrix whose singular values are all about 1."""
    flip = m.shape[0] > m.shape[1]
    x = m.T if flip else m
    x = x / (x.norm() + 1e-7)
    for _ in range(rounds):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if flip else x


class Muon:
    def __init__(self, matrices: list[torch.nn.Parameter], rate: float):
        self.matrices, self.rate = matrices, rate
        self.momentum = [torch.zeros_like(p) for p in matrices]

    @torch.no_grad()
    def step(self, share: float) -> None:
        """One update with this share of the rate."""
        rate = self.rate * share
        for p, momentum in zip(self.matrices, self.momentum, strict=True):
            momentum.mul_(MOMENTUM).add_(p.grad)
            update = orthogonal(p.grad + MOMENTUM * momentum)
            p.mul_(1 - rate * DECAY).add_(update, alpha=-rate * max(1.0, p.shape[0] / p.shape[1]) ** 0.5)
