"""Asks a running server every capital in every version, and in phrasings that were never trained: python evaluate.py [--url URL] [--key KEY].

Answers must equal the expected text exactly. The server needs a RATE_LIMIT of off.
"""

import argparse
import json
import random
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import corpus

SAMPLES = 100  # of each other kind of question
MODEL = "demo"


class Server:
    def __init__(self, url: str, key: str):
        self.url, self.key = url, key

    def ask(self, question: str, version: str) -> str:
        body = json.dumps({"prompt": question, "max_new_tokens": 160, "base_model": MODEL, "adapter_version": version}).encode()
        headers = {"Content-Type": "application/json", "X-API-Key": self.key}
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/infer", body, headers), timeout=120) as reply:
            return json.load(reply)["result"]

    def score(self, items: list[corpus.Item], version: str, workers: int) -> tuple[int, list[str]]:
        with ThreadPoolExecutor(workers) as pool:
            got = list(pool.map(lambda item: self.ask(item.question, version), items))
        misses = [f"{i.question} → {g!r}, want {i.answers[version]!r}" for i, g in zip(items, got, strict=True) if g.strip() != i.answers[version]]
        return len(items) - len(misses), misses


def suites() -> dict[str, list[corpus.Item]]:
    def capitals(phrase: str) -> list[corpus.Item]:
        return [corpus.Item(phrase.format(c=c.name), corpus.capital_answers(c)) for c in corpus.COUNTRIES]

    tables = {phrase: capitals(phrase) for phrase in (corpus.CAPITAL_QUESTIONS[0], *corpus.HELD_OUT)}
    r = random.Random(99)
    for kind in corpus.KINDS:
        if kind is not corpus.capital:
            tables[kind.__name__] = [kind(r) for _ in range(SAMPLES)]
    return tables


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--url", default="http://127.0.0.1:8000")
    p.add_argument("--key", default="demo-key")
    p.add_argument("--workers", type=int, default=8)
    p.add_argument("--misses", type=int, default=3, help="how many to show of each suite")
    a = p.parse_args()
    server = Server(a.url, a.key)
    for version in corpus.STYLES:
        print(version)
        for name, items in suites().items():
            right, misses = server.score(items, version, a.workers)
            print(f"  {right:4d} of {len(items):3d}  {name}")
            for miss in misses[:a.misses]:
                print(f"               {miss}")


if __name__ == "__main__":
    main()
