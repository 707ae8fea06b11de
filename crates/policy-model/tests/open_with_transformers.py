"""Opens folders that `Policy::save` wrote and checks what transformers makes of them.

    python open_with_transformers.py FOLDER...

For each folder: transformers loads it without missing or unexpected weights, its tokenizer loads where there is one,
and it generates. Run by hand, on what `cargo run -p policy-model --example resave -- FROM TO [float32]` writes.
"""

import pathlib
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def check(folder):
    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not report[problem], (folder, problem, report[problem])
    if (pathlib.Path(folder) / "tokenizer.json").exists():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    else:
        ids = torch.tensor([[5, 6, 7]])
    output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)[0].tolist()
    text = tokenizer.decode(output) if (pathlib.Path(folder) / "tokenizer.json").exists() else output
    print(f"{folder}: {type(model).__name__}, {model.dtype}, {model.num_parameters()} parameters: {text!r}")


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        check(folder)
