#!/usr/bin/env bash
# A Trainer with `use_cache=False`, the default, trains a vision-language model with a cache all the same.
#
# One would guess that no keys and values are collected in a training: `TrainingArguments.use_cache` is False, and the
# Trainer writes it into `model.config`. It does so in the outermost config alone. The language model inside
# Qwen3-VL looks at its own, `text_config`, where True stays: each step builds a cache that nobody reads, which copies
# keys and values of all layers. A plain language model, whose config is the outermost one, has none.
#
# Seen with transformers 5.24.0 and torch 2.14.1 (about 6 GB, 2 minutes), caches built in a training step:
#   guessed: Qwen2 0, Qwen3-VL 0; found: Qwen2 0, Qwen3-VL 1
#
# Exit 0: as recorded. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q torch==2.14.1 transformers==5.24.0 accelerate==1.15.0
cat > train.py <<'PYTHON'
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers import Trainer, TrainingArguments

SIZES = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, vocab_size=64)
VISION = dict(hidden_size=32, intermediate_size=48, depth=1, num_heads=2, out_hidden_size=32)
ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
plain = Qwen2ForCausalLM(Qwen2Config(**SIZES, num_key_value_heads=2))
text = dict(**SIZES, num_key_value_heads=2, head_dim=8, rope_parameters=ROPE)
tokens = dict(image_token_id=60, video_token_id=61, vision_start_token_id=62, vision_end_token_id=63)
config = Qwen3VLConfig(text_config=text, vision_config=dict(**VISION, deepstack_visual_indexes=[0]), **tokens)
visual = Qwen3VLForConditionalGeneration(config)
data = [{"input_ids": torch.arange(8), "labels": torch.arange(8)}]
found = []
for name, model, inner in (("Qwen2", plain, plain.model), ("Qwen3-VL", visual, visual.model.language_model)):
    caches = []
    inner.register_forward_hook(lambda module, inputs, output: caches.append(output.cache))
    args = TrainingArguments("out", max_steps=1, use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True)
    trainer = Trainer(model, args, train_dataset=data)
    trainer.train()
    assert model.config.use_cache is False
    found.append(f"{name} {sum(cache is not None for cache in caches)}")
print("found:", ", ".join(found))
PYTHON
for package in torch transformers accelerate; do
  echo "$package $(venv/bin/python -c "import importlib.metadata as m; print(m.version('$package'))")"
done
line=$(HF_HUB_OFFLINE=1 venv/bin/python train.py 2>/dev/null | grep '^found')
echo "guessed: Qwen2 0, Qwen3-VL 0; $line"
[ "$line" = "found: Qwen2 0, Qwen3-VL 1" ]
