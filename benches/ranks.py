"""Ranks beside as many processes that know nothing of each other, in one run: prints a table's rows.

    python benches/ranks.py MODEL_FOLDER harmless-base-test.jsonl.gz [ranks=2] [kind=bfloat16] [rounds=3] [batch=16] [steps=6] [zero=1] [micro=2]

Each round trains the same pairs of hh-rlhf twice, one thread a process: as one run of so many ranks, and as so many runs that
begin at once, each of its part of every batch, alike in length, so that they keep each other company to the end. Efficiency is
the tokens a second of the ranks over those of the runs together, each step after the first: by each step's fastest of the
rounds on both sides, which leaves out what a guest loses to its host's other guests, and round by round. Before that one
process of one thread makes the same steps as the ranks, and the greatest difference between losses is told. Stage 3 of ZeRO
recomputes layers, and so do the runs beside it. From stage 2 on the ranks sum the gradient of each micro-batch of `micro` pairs.
"""

import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

MARKER = "\n\nAssistant:"
DEFAULTS = {"ranks": 2, "kind": "bfloat16", "rounds": 3, "batch": 16, "steps": 6, "zero": 1, "micro": 2}


def hh_pairs(path, n):
    """Pairs of hh-rlhf as plain text, cut before the last answer."""
    pairs = []
    for line in gzip.open(path, "rt"):
        row = json.loads(line)
        cuts = [row[side].rindex(MARKER) + len(MARKER) for side in ("chosen", "rejected")]
        prompt = row["chosen"][: cuts[0]]
        if prompt == row["rejected"][: cuts[1]]:
            pairs.append({"prompt": prompt, "chosen": row["chosen"][cuts[0] :], "rejected": row["rejected"][cuts[1] :]})
        if len(pairs) == n:
            break
    return pairs


def dealt(pairs, batch, ranks):
    """Equal parts of every batch for so many runs, alike in length: dealt out from the longest pair to the shortest and back."""
    parts = [[] for _ in range(ranks)]
    for first in range(0, len(pairs), batch):
        order = sorted(pairs[first : first + batch], key=lambda pair: -sum(map(len, pair.values())))
        for turn in range(0, batch, ranks):
            hand = order[turn : turn + ranks]
            for part, pair in zip(parts, hand if turn // ranks % 2 == 0 else reversed(hand)):
                part.append(pair)
    return parts


def start(model, kind, pairs, batch, out, ranks, zero, micro):
    """Starts a run over `pairs`, a list, in the order given."""
    lines = out.with_suffix(".jsonl")
    lines.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    settings = {
        "model.path": model, "model.dtype": kind, "data.path": lines, "data.format": "pairs", "data.shuffle": "false",
        "data.max_length": 512, "train.batch_size": batch, "train.micro_batch_size": micro, "train.epochs": 1,
        "train.threads": 1, "train.checkpoints": "[]", "output.dir": out, "distributed.zero": zero,
        "train.gradient_checkpointing": "true" if int(zero) == 3 else "false",
    }
    command = ["target/debug/pref-train", "--recipe", "recipes/laptop-135m.toml", "--nproc-per-node", str(ranks)]
    command += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})


def steps(process, out):
    """What the steps of a run came to, once it has ended."""
    assert process.wait() == 0, f"pref-train ended with {process.returncode}"
    return [json.loads(line) for line in (out / "metrics.jsonl").open()]


def pace(steps):
    """Tokens a second."""
    return sum(step["tokens"] for step in steps[1:]) / sum(step["step_seconds"] for step in steps[1:])


def fastest(runs):
    """Of runs of the same steps, each step where it was fastest."""
    return [min(same, key=lambda step: step["step_seconds"]) for same in zip(*runs, strict=True)]


def main(model, data, *words):
    given = {**DEFAULTS, **dict(word.split("=") for word in words)}
    ranks, rounds, batch, count = (int(given[key]) for key in ("ranks", "rounds", "batch", "steps"))
    assert batch % ranks == 0, "every process takes the same part of the batch"
    kind, pairs = given["kind"], hh_pairs(data, batch * count)
    subprocess.run(["cargo", "build", "-q", "-p", "bins", "--bin", "pref-train"], check=True)
    rounds_of, parts_of = [], [[] for _ in range(ranks)]
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        run = lambda name, pairs, batch, ranks: (start(model, kind, pairs, batch, work / name, ranks, given["zero"], given["micro"]), work / name)
        alone = steps(*run("alone", pairs, batch, 1))
        for number in range(rounds):
            rounds_of.append(steps(*run(f"together-{number}", pairs, batch, ranks)))
            parts = enumerate(dealt(pairs, batch, ranks))
            apart = [run(f"apart-{number}-{at}", part, batch // ranks, 1) for at, part in parts]
            for part, one in zip(parts_of, apart):
                part.append(steps(*one))
    ratio = lambda together, apart: pace(together) / sum(map(pace, apart))
    ratios = [ratio(together, apart) for together, *apart in zip(rounds_of, *parts_of)]
    together = fastest(rounds_of)
    differs = max(abs(a["loss"] - b["loss"]) for a, b in zip(alone, rounds_of[-1], strict=True))
    print("| ranks | kind | pairs a step | step, s | efficiency | round by round | losses differ by |\n|--:|---|--:|--:|--:|---|--:|")
    print(
        f"| {ranks} | {kind} | {batch} | {statistics.mean(step['step_seconds'] for step in together[1:]):.2f} "
        f"| {ratio(together, map(fastest, parts_of)):.3f} | {', '.join(f'{ratio:.3f}' for ratio in ratios)} | {differs:.1e} |"
    )


main(*sys.argv[1:])
