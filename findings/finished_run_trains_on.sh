#!/usr/bin/env bash
# Trainer that resumes a run whose last checkpoint has all of `max_steps` trains one more step, each time.
#
# One would guess that `train(resume_from_checkpoint=True)` of a finished run does nothing, which makes a job safe to
# start again. Trainer looks at `max_steps` behind a step only. Where `max_steps` is no whole number of epochs it trains
# a step, changes the model, and writes a checkpoint behind the last; with `save_total_limit` a true one goes for it. At
# the end of an epoch nothing happens, so a test with whole epochs does not see it. No code of anybody else.
#
# Seen with torch 2.14.1, transformers 5.24.0, accelerate 1.15.0 (about 6 GB, 2 minutes):
#   5 steps an epoch, max_steps=2: start 1 ends at step 2, start 2 at step 3, start 3 at step 4; other weights each time
#   checkpoints after start 3 with save_total_limit=2: checkpoint-3 checkpoint-4
#   5 steps an epoch, max_steps=5: start 1 ends at step 5, start 2 at step 5, start 3 at step 5
#
# Exit 0: as recorded. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q torch==2.14.1 transformers==5.24.0 accelerate==1.15.0
cat > restart.py <<'PYTHON'
import os
import sys

import torch
import transformers
from transformers import Trainer, TrainingArguments

print("torch", torch.__version__, "transformers", transformers.__version__)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3, 1)

    def forward(self, x, labels=None):
        return {"loss": (self.layer(x).squeeze(-1) - labels).square().mean()}


data = [{"x": torch.randn(3), "labels": torch.tensor(1.0)} for _ in range(5)]


def start(folder, max_steps, count):
    ends, weights = [], []
    for number in range(count):
        args = TrainingArguments(
            folder, max_steps=max_steps, per_device_train_batch_size=1, save_strategy="steps", save_steps=1,
            save_total_limit=2, lr_scheduler_type="constant", learning_rate=0.1, use_cpu=True, report_to="none",
            disable_tqdm=True, logging_strategy="no",
        )
        trainer = Trainer(Model(), args, train_dataset=data)
        trainer.train(resume_from_checkpoint=True if number else None)
        ends.append(trainer.state.global_step)
        weights.append(tuple(trainer.model.layer.weight.flatten().tolist()))
    return ends, len(set(weights))


print("Guess: every start ends at max_steps, with the same weights.")
part, whole = start("part", 2, 3), start("whole", 5, 3)
print(f"5 steps an epoch, max_steps=2: ends at {part[0]}, {part[1]} different models", sorted(os.listdir("part")))
print(f"5 steps an epoch, max_steps=5: ends at {whole[0]}, {whole[1]} different models", sorted(os.listdir("whole")))
is_so = part == ([2, 3, 4], 3) and whole == ([5, 5, 5], 1)
sys.exit(0 if is_so and sorted(os.listdir("part")) == ["checkpoint-3", "checkpoint-4"] else 1)
PYTHON
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 venv/bin/python restart.py
