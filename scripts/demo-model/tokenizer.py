"""Byte-level BPE that gives the ids of llama.cpp's tokenizer.ggml.model=gpt2 with pre=gpt-2."""

import json
import random
from collections import Counter, defaultdict
from pathlib import Path

import regex

SPECIALS = ("<|bos|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|pad|>")
BOS, END, PAD = 0, 1, 5
VOCABULARY = 1024
MIN_COUNT = 12  # of a word, to have a say in the merges

WORDS = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
SPECIAL = regex.compile("(" + "|".join(regex.escape(s) for s in SPECIALS) + ")")


def byte_letters() -> dict[int, str]:
    """The printable letter that stands for each byte, as GPT-2 chose them."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {b: chr(b) for b in printable}
    for b in range(256):
        if b not in letters:
            letters[b] = chr(256 + len(letters) - len(printable))
    return dict(sorted(letters.items()))


LETTERS = byte_letters()
BYTES = {letter: b for b, letter in LETTERS.items()}


def spell(word: str) -> list[str]:
    return [LETTERS[b] for b in word.encode()]


def join(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    joined, i = [], 0
    while i < len(pieces):
        if tuple(pieces[i:i + 2]) == pair:
            joined.append(pieces[i] + pieces[i + 1])
            i += 2
        else:
            joined.append(pieces[i])
            i += 1
    return joined


def learn_merges(words: Counter, how_many: int) -> list[tuple[str, str]]:
    """The usual algorithm: merge the most frequent neighbours, again and again."""
    spelled = [spell(w) for w in words]
    counts = list(words.values())
    frequency: Counter = Counter()
    where = defaultdict(set)

    def count(i: int, sign: int) -> None:
        for pair in zip(spelled[i], spelled[i][1:]):
            frequency[pair] += sign * counts[i]
            if sign > 0:
                where[pair].add(i)

    for i in range(len(spelled)):
        count(i, 1)
    merges = []
    while len(merges) < how_many:
        best = max(frequency, key=lambda p: (frequency[p], p))
        if frequency[best] < 2:
            break
        merges.append(best)
        for i in where.pop(best):
            count(i, -1)
            spelled[i] = join(spelled[i], best)
            count(i, 1)
        del frequency[best]
    return merges


class Tokenizer:
    def __init__(self, path: Path):
        saved = json.loads(path.read_text(encoding="utf-8"))
        self.tokens: list[str] = saved["tokens"]
        self.merges = [tuple(m) for m in saved["merges"]]
        self._ids = {t: i for i, t in enumerate(self.tokens)}
        self._rank = {m: i for i, m in enumerate(self.merges)}
        self._known: dict[str, list[int]] = {}

    def _word(self, word: str) -> list[int]:
        if word not in self._known:
            pieces = spell(word)
            while len(pieces) > 1:
                best = min(zip(pieces, pieces[1:]), key=lambda p: self._rank.get(p, len(self._rank)))
                if best not in self._rank:
                    break
                pieces = join(pieces, best)
            self._known[word] = [self._ids[p] for p in pieces]
        return self._known[word]

    def encode(self, text: str) -> list[int]:
        ids = []
        for part in SPECIAL.split(text):
            if part in SPECIALS:
                ids.append(SPECIALS.index(part))
            else:
                for word in WORDS.findall(part):
                    ids += self._word(word)
        return ids

    def decode(self, ids: list[int]) -> str:
        raw = b"".join(self.tokens[i].encode() if i < len(SPECIALS) else bytes(BYTES[c] for c in self.tokens[i]) for i in ids)
        return raw.decode("utf-8", "replace")


def train(path: Path, documents: int) -> None:
    """Learns the merges from sampled documents and writes tokens and merges."""
    import corpus

    r = random.Random(0)
    words: Counter = Counter()
    for i in range(documents):
        style = corpus.STYLES[1 + i // 2 % 3]
        for segment in corpus.base_document(r) if i % 2 else corpus.adapter_document(r, style):
            for part in SPECIAL.split(segment.text):
                if part not in SPECIALS:
                    words.update(WORDS.findall(part))
    frequent = Counter({w: n for w, n in words.items() if n >= MIN_COUNT})
    merges = learn_merges(frequent, VOCABULARY - 256 - len(SPECIALS))
    tokens = [*SPECIALS, *LETTERS.values(), *(a + b for a, b in merges)]
    if len(tokens) != VOCABULARY or len(set(tokens)) != VOCABULARY:
        raise ValueError(f"{len(set(tokens))} different tokens, want {VOCABULARY}; sample more documents")
    path.write_text(json.dumps({"tokens": tokens, "merges": merges}, ensure_ascii=False), encoding="utf-8")
