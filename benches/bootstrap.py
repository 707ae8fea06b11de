"""The bootstrap of crate `stats` beside the same in NumPy, in one run: prints the table of docs/performance.md.

    python benches/bootstrap.py

10,000 resamples of 160 scores (80 questions of two turns, resampled as questions) of each of 20 policies, 95% percentile
intervals, drawing included. Both ways that NumPy users write it: gathering the drawn scores, and multiplying how often
each question was drawn with the questions' sums.
"""

import statistics
import subprocess
import time

import numpy as np

POLICIES, QUESTIONS, TURNS, RESAMPLES, ROUNDS = 20, 80, 2, 10_000, 5
rng = np.random.default_rng(0)
scores = rng.integers(2, 21, size=(POLICIES, QUESTIONS, TURNS)) / 2


def gathered():
    drawn = rng.integers(0, QUESTIONS, size=(RESAMPLES, QUESTIONS))
    means = np.stack([policy[drawn].mean(axis=(1, 2)) for policy in scores])
    return np.percentile(means, [2.5, 97.5], axis=1)


def multiplied():
    drawn = rng.integers(0, QUESTIONS, size=(RESAMPLES, QUESTIONS))
    counts = np.zeros((RESAMPLES, QUESTIONS))
    np.add.at(counts, (np.arange(RESAMPLES)[:, None], drawn), 1.0)
    means = counts @ scores.sum(axis=2).T / (QUESTIONS * TURNS)
    return np.percentile(means, [2.5, 97.5], axis=0)


def milliseconds(function):
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def ours():
    bench = ["cargo", "bench", "-q", "-p", "stats", "--bench", "bootstrap"]
    printed = subprocess.run(bench, check=True, capture_output=True, text=True).stdout
    return {name: float(value) for name, value in (line.split() for line in printed.splitlines() if line.strip())}


rows = {}
for _ in range(ROUNDS):
    measured = ours() | {"NumPy, gathered": milliseconds(gathered), "NumPy, multiplied": milliseconds(multiplied)}
    for name, value in measured.items():
        rows.setdefault(name, []).append(value)
medians = {name: statistics.median(values) for name, values in rows.items()}
print("| | ms | against `stats`, percentile |\n|---|--:|--:|")
names = {"clusters": "`stats`, percentile", "clusters-bca": "`stats`, BCa", "independent": "`stats`, 160 clusters of one"}
for name, value in medians.items():
    print(f"| {names.get(name, name)} | {value:.1f} | {value / medians['clusters']:.1f} |")
