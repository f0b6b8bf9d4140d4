"""The network in PyTorch, with the names and the arithmetic of llama.cpp's llama architecture, so that export is a copy."""

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    vocabulary: int = 1024
    width: int = 192
    layers: int = 4
    heads: int = 3
    kv_heads: int = 1
    head: int = 64  # GPUs have attention kernels for 64, not for 32
    feed_forward: int = 384  # all inner sizes are multiples of 32, as Q8_0 needs
    epsilon: float = 1e-5
    rope_base: float = 10000.0
    context: int = 512

    def saved(self) -> dict:
        return asdict(self)


class Linear(nn.Module):
    """A matrix without bias, to which a LoRA can be added."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / math.sqrt(inputs))
        self.a: nn.Parameter | None = None
        self.b: nn.Parameter | None = None
        self.scale = 0.0

    def adapt(self, rank: int, alpha: float) -> list[nn.Parameter]:
        outputs, inputs = self.weight.shape
        self.a = nn.Parameter(torch.randn(rank, inputs) / math.sqrt(inputs))
        self.b = nn.Parameter(torch.zeros(outputs, rank))
        self.scale = alpha / rank
        return [self.a, self.b]

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight)
        return y if self.a is None else y + self.scale * F.linear(F.linear(x, self.a), self.b)


class Norm(nn.Module):
    def __init__(self, width: int, epsilon: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon) * self.weight


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions over neighbouring pairs, llama.cpp's NORM order: nothing has to be permuted for export."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


class Block(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        self.shape = s
        self.attn_norm = Norm(s.width, s.epsilon)
        self.attn_q = Linear(s.width, s.heads * s.head)
        self.attn_k = Linear(s.width, s.kv_heads * s.head)
        self.attn_v = Linear(s.width, s.kv_heads * s.head)
        self.attn_output = Linear(s.heads * s.head, s.width)
        self.ffn_norm = Norm(s.width, s.epsilon)
        self.ffn_gate = Linear(s.width, s.feed_forward)
        self.ffn_up = Linear(s.width, s.feed_forward)
        self.ffn_down = Linear(s.feed_forward, s.width)
        with torch.no_grad():  # what is added to the stream starts small
            self.attn_output.weight /= math.sqrt(2 * s.layers)
            self.ffn_down.weight /= math.sqrt(2 * s.layers)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        s, (rows, length, _) = self.shape, x.shape

        def split(y: Tensor, heads: int) -> Tensor:
            return y.view(rows, length, heads, s.head).transpose(1, 2)

        y = self.attn_norm(x)
        q = rotate(split(self.attn_q(y), s.heads), cos, sin)
        k = rotate(split(self.attn_k(y), s.kv_heads), cos, sin).repeat_interleave(s.heads // s.kv_heads, 1)
        v = split(self.attn_v(y), s.kv_heads).repeat_interleave(s.heads // s.kv_heads, 1)
        seen = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(s.head) + mask, -1) @ v
        x = x + self.attn_output(seen.transpose(1, 2).reshape(rows, length, -1))
        y = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(y)) * self.ffn_up(y))


class Network(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        self.shape = s
        self.token_embd = nn.Parameter(torch.randn(s.vocabulary, s.width) * 0.05)
        self.blk = nn.ModuleList(Block(s) for _ in range(s.layers))
        self.output_norm = Norm(s.width, s.epsilon)

    def matrices(self) -> dict[str, Linear]:
        return {name: m for name, m in self.named_modules() if isinstance(m, Linear)}

    def forward(self, ids: Tensor, mask: Tensor, wanted: Tensor) -> Tensor:
        """Logits at the wanted flat positions of ids (rows, length); mask is added to the attention scores."""
        s = self.shape
        frequency = s.rope_base ** (-torch.arange(0, s.head, 2).float() / s.head)
        angle = torch.outer(torch.arange(ids.shape[1]).float(), frequency)
        x = F.embedding(ids, self.token_embd)
        for block in self.blk:
            x = block(x, angle.cos(), angle.sin(), mask)
        return F.linear(self.output_norm(x.flatten(0, 1)[wanted]), self.token_embd)
