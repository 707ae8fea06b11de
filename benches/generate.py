"""Generation beside transformers' `generate`, in one run: prints the table of docs/performance.md.

    python benches/generate.py MODEL_FOLDER QUESTIONS.jsonl [NEW_TOKENS [ROUNDS]]

The first turns of MT-Bench's first 32 questions through the model's chat template, greedy, 256 new tokens each and no early
end, in batches of 32 and one at a time (of those, two). Medians of three rounds in turn; loading is not counted.
"""

import json
import statistics
import subprocess
import sys
import time

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS, ALONE = 32, 2
folder, questions, *rest = sys.argv[1:]
NEW_TOKENS, ROUNDS = (list(map(int, rest)) + [256, 3][len(rest) :])
tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
turns = [json.loads(line)["turns"][0] for line in open(questions)][:PROMPTS]
prompts = [
    tokenizer.apply_chat_template([{"role": "user", "content": turn}], add_generation_prompt=True, return_dict=True)["input_ids"]
    for turn in turns
]
subprocess.run(["cargo", "build", "-q", "-p", "policy-model", "--example", "generate"], check=True)


def ours(kind, batch, prompts):
    lines = "\n".join(" ".join(map(str, prompt)) for prompt in prompts)
    command = ["target/debug/examples/generate", folder, kind, str(batch), str(NEW_TOKENS)]
    tokens, seconds = subprocess.run(command, input=lines, check=True, capture_output=True, text=True).stdout.split()
    return int(tokens) / float(seconds)


def theirs(model, batch, prompts):
    start = time.perf_counter()
    for first in range(0, len(prompts), batch):
        padded = tokenizer.pad({"input_ids": prompts[first : first + batch]}, return_tensors="pt")
        model.generate(
            **padded, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=tokenizer.pad_token_id
        )
    return len(prompts) * NEW_TOKENS / (time.perf_counter() - start)


print(f"transformers {transformers.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads")
print("| kind | batch | ours, tokens/s | transformers, tokens/s | ratio |")
print("|---|--:|--:|--:|--:|")
for kind in ("float32", "bfloat16"):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=kind)
    for batch, some in ((PROMPTS, prompts), (1, prompts[:ALONE])):
        rates = [(ours(kind, batch, some), theirs(model, batch, some)) for _ in range(ROUNDS)]
        us, them = (statistics.median(rate) for rate in zip(*rates))
        print(f"| {kind} | {batch} | {us:.0f} | {them:.0f} | {us / them:.1f} |", flush=True)
