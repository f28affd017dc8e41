#!/usr/bin/env bash
# Trainer with `label_smoothing_factor` learns to repeat the token that was read, once the model is compiled.
#
# One would guess that `torch_compile=True` changes the speed and not the loss. Trainer smooths labels by itself and
# shifts them by one for the class names of a table. A compiled model has the class name OptimizedModule, which is in
# no table, so its logits are compared with the token itself. The sum is then divided by the number of shifted labels.
# The loss falls as nicely as ever. A plain Qwen2ForCausalLM, no code of anybody else.
#
# Seen with torch 2.14.1, transformers 5.24.0, accelerate 1.15.0 (about 6 GB, 2 minutes):
#   not compiled: loss 3.9194; smoothed loss of the next token 3.9194
#   compiled:     loss 4.5097; smoothed loss of the next token 3.9194, of the same token x 8/7 4.5097
#
# Exit 0: as recorded. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q torch==2.14.1 transformers==5.24.0 accelerate==1.15.0
cat > smoothing.py <<'PYTHON'
import sys

import torch
import transformers
from transformers import Qwen2Config, Qwen2ForCausalLM, Trainer, TrainingArguments

print("torch", torch.__version__, "transformers", transformers.__version__)
ids = torch.arange(1, 9)
sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
config = Qwen2Config(**sizes, num_attention_heads=2, num_key_value_heads=2)
entropy = torch.nn.functional.cross_entropy
losses = {}
for compiled in (False, True):
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        logits = model(ids[None]).logits[0]
    following = entropy(logits[:-1], ids[1:], label_smoothing=0.1).item()
    same = entropy(logits, ids, label_smoothing=0.1, reduction="sum").item() / (len(ids) - 1)
    options = {"torch_compile": True, "torch_compile_backend": "eager"} if compiled else {}
    options |= {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "max_steps": 1}
    arguments = TrainingArguments("run", label_smoothing_factor=0.1, **options)
    losses[compiled] = Trainer(model, arguments, train_dataset=[{"input_ids": ids, "labels": ids}]).train().training_loss
    print("compiled" if compiled else "not compiled", losses[compiled], "next token", following, "same token", same)
as_recorded = abs(losses[False] - following) < 1e-3 and abs(losses[True] - same) < 1e-3
print("guessed: one loss; found:", "two" if as_recorded else "something else")
sys.exit(not as_recorded)
PYTHON
venv/bin/python smoothing.py
