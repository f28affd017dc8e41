#!/usr/bin/env bash
# A Qwen2.5-VL that was built from a config and then sharded is saved under other tensor names than before.
#
# One would guess that `save_pretrained` writes the same names for one model, sharded or not: it is given the gathered
# state. Where `from_pretrained` made the model, it does. Otherwise Transformers looks up the renaming between memory
# and file by the name of the class. `fully_shard` gives the model a class of its own, named
# FSDPQwen2_5_VLForConditionalGeneration, for which there is no renaming; accelerate's `unwrap_model` leaves that class
# as it is. The file holds the names of memory, `model.language_model.layers...`; published checkpoints say
# `model.layers...`. `from_pretrained` reads both; a reader of the published names finds 1 of 33 tensors.
#
# Seen with torch 2.14.1, transformers 5.24.0 (about 6 GB, 2 minutes):
#   guessed: the same 33 names; found: 1 name in common, class FSDPQwen2_5_VLForConditionalGeneration
#
# Exit 0: as recorded. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q torch==2.14.1 torchvision==0.29.1 transformers==5.24.0
cat > save.py <<'PYTHON'
import sys

import torch
import transformers
from safetensors import safe_open
from torch.distributed import init_process_group
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration


def saved_names(folder):
    with safe_open(f"{folder}/model.safetensors", "pt") as file:
        return set(file.keys())


sizes = {"hidden_size": 32, "intermediate_size": 64}
rope = {"type": "default", "mrope_section": [2, 3, 3]}
heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
text = {**sizes, **heads, "num_hidden_layers": 1, "vocab_size": 100, "rope_scaling": rope}
vision = {**sizes, "depth": 1, "num_heads": 2, "out_hidden_size": 32, "fullatt_block_indexes": [0]}
special = {"bos_token_id": 1, "eos_token_id": 2}
config = Qwen2_5_VLConfig(text_config={**text, **special}, vision_config=vision, tie_word_embeddings=False)

print("torch", torch.__version__, "transformers", transformers.__version__)
init_process_group("gloo")
model = Qwen2_5_VLForConditionalGeneration(config)
model.save_pretrained("before")
fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
model.save_pretrained("sharded", state_dict=state)
before, sharded = saved_names("before"), saved_names("sharded")
print(f"before: {sorted(before)[1]}\nsharded: {sorted(sharded)[1]}")
_, info = Qwen2_5_VLForConditionalGeneration.from_pretrained("sharded", output_loading_info=True)
print("from_pretrained misses:", len(info["missing_keys"]))
print(
    f"guessed: the same {len(before)} names; found: {len(before & sharded)} name in common, "
    f"class {type(model).__name__}"
)
sys.exit(not (len(before) == 33 and len(before & sharded) == 1 and not info["missing_keys"]))
PYTHON
venv/bin/torchrun --nproc-per-node 1 save.py
