#!/usr/bin/env bash
# accelerate 1.15.0, torch 2.14.1: two processes of torchrun on a machine without accelerator.
#
# One would guess: `PartialState()` says 2 processes, and one of them is the main one. `init_process_group` was called
# by it, and torch.distributed is initialised with a world of 2.
# What happens: num_processes is 1 and is_main_process True in both. Each process takes all of the work, writes the
# same files, and `wait_for_everyone()` waits for nobody. Nothing is warned of. `PartialState(cpu=True)` says 2.
#
# Seen:
#   PartialState()          rank 0: world of torch 2, num_processes 1, is_main_process True
#   PartialState()          rank 1: world of torch 2, num_processes 1, is_main_process True
#   PartialState(cpu=True)  rank 0: world of torch 2, num_processes 2, is_main_process True
#   PartialState(cpu=True)  rank 1: world of torch 2, num_processes 2, is_main_process False
#
# Needs about 6 GB for torch, two minutes, and no accelerator (it hides CUDA devices). Ends with 0 while this is so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install --quiet torch==2.14.1 accelerate==1.15.0 numpy
venv/bin/python -m pip list 2>/dev/null | grep -iE '^(torch|accelerate) '
cat > state.py <<'PY'
import pathlib
import sys

import torch
from accelerate import PartialState

is_cpu = "cpu" in sys.argv
state = PartialState(cpu=True) if is_cpu else PartialState()
world, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
name = "PartialState(cpu=True)" if is_cpu else "PartialState()"
text = f"{name:22}  rank {rank}: world of torch {world}, num_processes {state.num_processes}, "
pathlib.Path(f"{sys.argv[1]}.{rank}").write_text(f"{text}is_main_process {state.is_main_process}\n")
torch.distributed.barrier()
torch.distributed.destroy_process_group()
PY
export CUDA_VISIBLE_DEVICES="" OMP_NUM_THREADS=1
for words in "plain" "forced cpu"; do
    venv/bin/python -m torch.distributed.run --standalone --nproc_per_node=2 state.py $words
done
echo "Guess: num_processes 2 in every line, is_main_process True in one of two."
cat plain.0 plain.1 forced.0 forced.1 | tee seen
[ "$(grep -c 'num_processes 1, is_main_process True' seen)" = 2 ] && [ "$(grep -c 'num_processes 2' seen)" = 2 ] && exit 0
exit 1
