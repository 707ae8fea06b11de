"""Training beside TRL's `DPOTrainer`, in one run: prints the table of docs/performance.md.

    pip install trl==1.16 datasets
    python benches/train.py MODEL_FOLDER harmless-base-test.jsonl.gz [hh] [gair] [tiny] [short]

Both sides train on the same pairs in the same order, batch 4, `max_length` 512, float32 master weights, no gradient
checkpointing; they compute in bfloat16 (TRL under autocast), and the tiny model in float32. In each round pref-train runs
twice, so that the second run finds the reference's log-probabilities of the first, then TRL with the reference in every
step, then TRL with it computed beforehand. Each run's first step is left out, its others are averaged, and of the rounds it is the
median. A step is what each side measures between the batch and the updated weights; the wall clock, from the end of the first
step to that of the last, has what lies between them too: metrics written, and the next batch. The reference's pass of pref-train is
what the first of its two runs took longer to its first step.
"""

import gzip
import json
import os
import random
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BATCH, MAX_LENGTH = 4, 512
# Pairs, rounds, and what the policy computes in.
CASES = {"hh": (24, 3, "bfloat16"), "gair": (16, 2, "bfloat16"), "tiny": (400, 3, "float32"), "short": (400, 3, "float32")}
TINY_TOKENIZER = Path("crates/pref-data/tests/fixtures/tiny")


def hh_pairs(path, n):
    """Pairs of hh-rlhf as plain text, cut before the last answer."""
    marker, pairs = "\n\nAssistant:", []
    for line in gzip.open(path, "rt"):
        row = json.loads(line)
        cuts = [row[side].rindex(marker) + len(marker) for side in ("chosen", "rejected")]
        prompt = row["chosen"][: cuts[0]]
        if prompt == row["rejected"][: cuts[1]]:
            pairs.append({"prompt": prompt, "chosen": row["chosen"][cuts[0] :], "rejected": row["rejected"][cuts[1] :]})
        if len(pairs) == n:
            return pairs


def cut_pairs(path, n, length):
    """Those of which no text has more characters than `length`."""
    return [{key: text[:length] for key, text in pair.items()} for pair in hh_pairs(path, n)]


def gair_like_pairs(path, n, tokenizer):
    """The same text cut to the lengths of GAIR's set: 150 tokens and twice 250 on average, scattered as real ones are."""
    text = " ".join(pair["prompt"] + pair["chosen"] for pair in hh_pairs(path, 1500))
    ids, rng = tokenizer(text)["input_ids"], random.Random(0)

    def cut(mean):
        nonlocal ids
        length = min(300, max(8, round(mean * rng.lognormvariate(-0.06, 0.35))))
        part, ids = ids[:length], ids[length:]
        return tokenizer.decode(part)

    return [{"prompt": cut(150) + "\n", "chosen": cut(250), "rejected": cut(250)} for _ in range(n)]


def tiny_model(folder):
    """Two layers of width 64 over the small tokenizer of the tests."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shutil.copytree(TINY_TOKENIZER, folder)
    shape = {"hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=512, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, **shape)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def spread(ends):
    """Seconds a step, from when the steps ended."""
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def event_times(folder):
    """When each step of pref-train ended, as its TensorBoard events say it; the first event is not of a step."""
    data, times = next(Path(folder).glob("events.out.tfevents.*")).read_bytes(), []
    while data:
        # A frame is the length of its record, that length's check sum, the record and its check sum.
        (length,) = struct.unpack_from("<Q", data)
        times += struct.unpack_from("<d", data, 8 + 4 + 1)
        data = data[8 + 4 + length + 4 :]
    return times[1:]


def peer(model, pairs, dtype, precompute):
    """One run of TRL; prints what `ours` returns."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    class Clock(TrainerCallback):
        def __init__(self):
            self.steps, self.ends = [], []

        def on_step_begin(self, *_, **__):
            self.began = time.perf_counter()

        def on_step_end(self, *_, **__):
            self.ends.append(time.perf_counter())
            self.steps.append(self.ends[-1] - self.began)

    class InOrder(DPOTrainer):
        def _get_train_sampler(self, *_, **__):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    clock = Clock()
    config = DPOConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=BATCH, max_length=MAX_LENGTH, num_train_epochs=1,
        bf16=dtype == "bfloat16", use_cpu=True, gradient_checkpointing=False, precompute_ref_log_probs=precompute,
        learning_rate=5e-7, save_strategy="no", logging_steps=1, report_to=[], disable_tqdm=True,
    )
    trainer = InOrder(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), args=config, callbacks=[clock],
        processing_class=AutoTokenizer.from_pretrained(model),
        train_dataset=Dataset.from_list([json.loads(line) for line in open(pairs)]),
    )
    trainer.train()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print("\n" + json.dumps({"steps": clock.steps[1:], "wall": spread(clock.ends), "peak_gb": peak}))


def theirs(*arguments):
    command = [sys.executable, __file__, "--peer", *map(str, arguments)]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return json.loads(run.stdout.splitlines()[-1])


def ours(model, pairs, dtype, out):
    """One run of pref-train; `first` is the time from its start to its first step."""
    settings = {
        "model.path": model, "model.dtype": dtype, "data.path": pairs, "data.format": "pairs", "data.shuffle": "false",
        "data.max_length": MAX_LENGTH, "train.batch_size": BATCH, "train.micro_batch_size": BATCH, "output.dir": out,
    }
    command = ["target/debug/pref-train", "--recipe", "recipes/laptop-135m.toml"]
    command += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics = Path(out) / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_text().count("\n")):
        time.sleep(0.005)
    first = time.perf_counter() - began
    # A child's ru_maxrss begins with its parent's, which has libtorch loaded: so the process is asked itself, now and then.
    peak = 0
    while process.poll() is None:
        marks = [line.split()[1] for line in open(f"/proc/{process.pid}/status") if line.startswith("VmHWM")]
        peak = max([peak, *map(int, marks)])
        time.sleep(0.1)
    assert process.returncode == 0, f"pref-train ended with {process.returncode}"
    steps = [json.loads(line)["step_seconds"] for line in metrics.open()]
    return {"steps": steps[1:], "wall": spread(event_times(out)), "first": first - steps[0], "peak_gb": peak / 1e6}


def compare(case, model, pairs, work):
    """Prints the table's rows for one case."""
    n, rounds, dtype = CASES[case]
    lines = work / f"{case}.jsonl"
    lines.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    cold, warm, inline, before = [], [], [], []
    for i in range(rounds):
        out = work / f"{case}-{i}"
        cold.append(ours(model, lines, dtype, out))
        # All but the reference's log-probabilities goes, and the run begins again.
        for path in out.iterdir():
            if path.name != "reference":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        warm.append(ours(model, lines, dtype, out))
        shutil.rmtree(out)
        inline.append(theirs(model, lines, dtype, ""))
        before.append(theirs(model, lines, dtype, "precompute"))
    wall = lambda runs: statistics.median(run["wall"] for run in runs)
    mean = lambda runs: statistics.median(statistics.mean(run["steps"]) for run in runs)
    first = [statistics.median(run["first"] for run in runs) for runs in (cold, warm)]
    charged = (first[0] - first[1]) / n * BATCH
    base = mean(warm)
    rows = [("ours", base, warm), ("ours, the reference's pass charged to one epoch", base + charged, cold)]
    rows += [("ours, to three", base + charged / 3, cold)]
    rows += [("TRL, reference in every step", mean(inline), inline), ("TRL, reference computed beforehand", mean(before), before)]
    for name, seconds, runs in rows:
        peak = statistics.median(run["peak_gb"] for run in runs)
        print(
            f"| {case} | {name} | {seconds * 1e3:.2f} | {wall(runs) * 1e3:.2f} | {BATCH / seconds:.3f} | {seconds / base:.2f} "
            f"| {wall(runs) / wall(warm):.2f} | {peak:.1f} |",
            flush=True,
        )
    print(f"\nstart to first step: {first[1]:.2f} s with the reference's log-probabilities there, {first[0]:.2f} s without\n")


if sys.argv[1] == "--peer":
    peer(*sys.argv[2:5], bool(sys.argv[5]))
else:
    import torch
    import transformers
    import trl

    folder, data, *wanted = sys.argv[1:]
    subprocess.run(["cargo", "build", "-q", "-p", "bins", "--bin", "pref-train"], check=True)
    print(f"TRL {trl.__version__}, transformers {transformers.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print("| case | | step, ms | wall, ms | pairs/s | step / ours | wall / ours | peak, GB |\n|---|---|--:|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        makers = {
            "hh": lambda n: (folder, hh_pairs(data, n)),
            "gair": lambda n: (folder, gair_like_pairs(data, n, tokenizer)),
            "tiny": lambda n: (tiny_model(work / "tiny"), cut_pairs(data, n, 90)),
            "short": lambda n: (tiny_model(work / "short"), cut_pairs(data, n, 20)),
        }
        for case in wanted or CASES:
            compare(case, *makers[case](CASES[case][0]), work)
