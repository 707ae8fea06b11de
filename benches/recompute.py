"""Recomputes verdicts of a study of the sandbox with NumPy, SciPy and statsmodels, and compares them with its table.

    pip install numpy scipy statsmodels pyarrow
    cargo run -p bins --bin study -- --preset sandbox --seeds 2 --tables 1,2,3,4,5 --brief --out runs/sandbox
    python benches/recompute.py runs/sandbox

It reads `results.parquet` only: the variance between seeds pooled over all policies, differences with strata and
Satterthwaite's degrees of freedom, Holm's correction over the comparisons of a question, and the minimum detectable effect.
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy import optimize, stats
from statsmodels.stats.multitest import multipletests

TOLERANCE = 1e-6
out = Path(sys.argv[1])
rows = pq.read_table(out / "results.parquet").to_pylist()

# Judge's scores of the benchmark, turns averaged: policy -> [seed, question].
sums, categories = defaultdict(list), {}
for row in rows:
    if row["scorer"] == "sandbox-judge" and row["question_set"] == "mt-bench":
        policy = tuple(row[k] for k in ("annotator", "loss", "fraction", "flip_rate", "progress"))
        sums[policy, row["seed"], row["question_id"]].append(row["score"])
        categories[row["question_id"]] = row["category"]
policies = list(dict.fromkeys(policy for policy, _, _ in sums))
seeds, questions = (sorted({key[at] for key in sums}) for at in (1, 2))
S, Q, K = len(seeds), len(questions), len(policies)
x = np.array([[[np.mean(sums[p, s, q]) for q in questions] for s in seeds] for p in policies])
strata = np.array([categories[q] for q in questions])


def group(policy):
    _, loss, _, flips, progress = policy
    if loss != "sft" and flips >= 0.1:
        return "flipped"
    return "early" if loss != "sft" and progress < 1 else "clean"


groups = np.array([group(policy) for policy in policies])
sizes = {name: (groups == name).sum() for name in set(groups)}
largest = max(sizes, key=sizes.get)
groups = np.array([name if sizes[name] >= 4 else largest for name in groups])


def interaction(y):
    """Mean square of seeds x questions of y[..., seeds, questions]."""
    rest = y - y.mean(-1, keepdims=True) - y.mean(-2, keepdims=True) + y.mean((-1, -2), keepdims=True)
    return (rest**2).sum((-1, -2)) / ((S - 1) * (Q - 1))


def by_group(squares):
    """Solves the expected mean squares of what the mean over policies leaves for the variance of each group."""
    total = squares.sum() / (1 - 1 / K)
    names = set(groups)
    if len(names) == 1:
        return {largest: total / K}
    return {name: max((squares[groups == name].mean() - total / K**2) / (1 - 2 / K), 0) for name in names}


rest = x - x.mean(0)
of_seeds, of_cells = by_group(rest.mean(-1).var(-1, ddof=1)), by_group(interaction(rest) / Q)
df = {name: (groups == name).sum() * (S - 1) * (1 - 1 / K) for name in of_seeds}
combined, shared = (np.array([of[name] for name in groups]) for of in (of_seeds, of_cells))


def contrast(weights):
    values = weights @ x.mean(1)
    terms = []
    for name in sorted(set(strata)):
        part = values[strata == name]
        terms.append(((len(part) / Q) ** 2 * part.var(ddof=1) / len(part), len(part) - 1))
    independent = (weights**2 * shared).sum() * Q
    paired = min(1, 2 * interaction(np.tensordot(weights, x, 1)) / independent)
    seed_terms = []
    for name in of_seeds:
        used = (groups == name) & (weights != 0)
        if used.any():
            share = paired * weights[used] ** 2 / S
            seed_terms.append((share.sum() * of_seeds[name], min(df[name], share.sum() ** 2 / (share**2).sum() * df[name])))
            seed_terms += [(-part * of_cells[name], df[name] * (Q - 1)) for part in share]
    if sum(term for term, _ in seed_terms) > 0:
        terms += seed_terms
    variance = sum(term for term, _ in terms)
    freedom = variance**2 / sum(term**2 / d for term, d in terms)
    freedom = max(freedom, min(2, min(df.values())))
    return weights @ x.mean((1, 2)), variance**0.5, freedom


def detectable(error, freedom, comparisons):
    alpha = 0.05 / comparisons
    critical = stats.t.ppf(1 - alpha / 2, freedom)
    power = lambda shift: stats.nct.sf(critical, freedom, shift) + np.nan_to_num(stats.nct.cdf(-critical, freedom, shift))
    return optimize.brentq(lambda shift: power(shift) - 0.8, 0.01, 60, xtol=1e-12) * error


def weights_of(pairs):
    weights = np.zeros(K)
    for policy, weight in pairs:
        weights[policies.index(policy)] += weight
    return weights


def final(annotator, loss, fraction=1.0, flips=0.0):
    return annotator, loss, fraction, flips, 1.0


sft = next(policy for policy in policies if policy[1] == "sft")
llm, human = "gpt-4-turbo", "human"
family = {f"{loss.upper()}: {llm} − {human}": [(final(llm, loss), 1), (final(human, loss), -1)] for loss in ("dpo", "ipo")}
for annotator in (human, llm):
    for loss in ("dpo", "ipo"):
        family[f"{annotator}: {loss.upper()} − SFT"] = [(final(annotator, loss), 1), (sft, -1)]
levels = np.array([1.0, 0.75, 0.5, 0.25])
slopes = (levels - levels.mean()) / ((levels - levels.mean()) ** 2).sum() * (levels.max() - levels.min())
noise = [(final(human, loss, 1.0, flips), sign / 4) for flips in (0.05, 0.25, 0.5, 0.75) for loss, sign in (("cdpo", 1), ("dpo", -1))]
others = {
    f"{human}, DPO: trend with volume": [(final(human, "dpo", level), slope) for level, slope in zip(levels, slopes)],
    f"{human}: cDPO − DPO, under noise": noise,
}

with open(out / "tables" / "verdicts.csv", encoding="utf-8") as file:
    printed = {row["Comparison"]: row for row in csv.DictReader(file)}
estimates = {name: contrast(weights_of(pairs)) for name, pairs in {**family, **others}.items()}
p_values = [2 * stats.t.sf(abs(value) / error, freedom) for value, error, freedom in (estimates[name] for name in family)]
holm = dict(zip(family, multipletests(p_values, method="holm")[1]))
off = 0
for name, (value, error, freedom) in estimates.items():
    half = stats.t.ppf(0.975, freedom) * error
    found = {"Judge": value, "Judge low": value - half, "Judge high": value + half}
    if name in holm:
        found["MDE (80% power)"] = detectable(error, freedom, len(family))
        found["p"] = holm[name]
    for column, number in found.items():
        text = printed[name][column]
        agrees = number < 1e-3 if text == "< 0.001" else abs(float(text) - number) <= TOLERANCE * (1 + abs(number))
        off += not agrees
        print(f"{name:36} {column:16} here {number:+.6f}  study {text:>22}  {'' if agrees else 'DIFFERS'}")
print(f"{len(estimates)} rows, {off} numbers differ")
sys.exit(off > 0)
