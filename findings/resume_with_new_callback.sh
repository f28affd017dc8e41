#!/usr/bin/env bash
# A training that is resumed with an EarlyStoppingCallback which it did not have before dies at its next checkpoint.
#
# One would guess that a callback may join when a run is resumed, as callbacks without a state may. Trainer takes the
# states of callbacks from the checkpoint's trainer_state.json, which has none of the new one. It then looks for the
# place of every callback that has a state, behind weights and optimizer: KeyError, and the checkpoint stays half, with
# no trainer_state.json. `get_last_checkpoint` of Transformers gives that half next time, which cannot be resumed. A
# plain torch module, no code of anybody else.
#
# Seen with torch 2.14.1, transformers 5.24.0, accelerate 1.15.0 (about 6 GB, 2 minutes):
#   guessed: three steps; found: KeyError 'EarlyStoppingCallback'
#   last checkpoint: checkpoint-2, with trainer_state.json: False
#
# Exit 0: as recorded. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q torch==2.14.1 transformers==5.24.0 accelerate==1.15.0
cat > resume.py <<'PYTHON'
import sys
from pathlib import Path

import torch
import transformers
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint


class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, x, labels=None):
        return {"loss": ((self.layer(x) - labels) ** 2).mean()}


def train(steps, callbacks, resume):
    arguments = TrainingArguments(
        "run", use_cpu=True, report_to="none", disable_tqdm=True, max_steps=steps, eval_strategy="steps", eval_steps=1,
        save_steps=1, load_best_model_at_end=True, metric_for_best_model="loss",
    )
    Trainer(Line(), arguments, train_dataset=data, eval_dataset=data, callbacks=callbacks).train(resume)


print("torch", torch.__version__, "transformers", transformers.__version__)
data = [{"x": torch.ones(2), "labels": torch.ones(1)}] * 4
train(1, [], None)
try:
    train(3, [EarlyStoppingCallback(2)], True)
    found = "three steps"
except KeyError as error:
    found = f"KeyError {error}"
last = Path(get_last_checkpoint("run"))
is_whole = (last / "trainer_state.json").is_file()
print("guessed: three steps; found:", found)
print(f"last checkpoint: {last.name}, with trainer_state.json: {is_whole}")
sys.exit(not (found == "KeyError 'EarlyStoppingCallback'" and last.name == "checkpoint-2" and not is_whole))
PYTHON
venv/bin/python resume.py
