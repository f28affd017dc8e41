#!/usr/bin/env bash
# A process group of gloo outlives `destroy_process_group` where a model in DistributedDataParallel was the first.
#
# One would guess that `destroy_process_group` ends the threads of the group, or that they end with the last model that
# uses it. But the first DistributedDataParallel of a process imports `torch.distributed.nn.functional`. Its functions
# have `group=group.WORLD` as a default, which is read at import: by then the group is there, so the defaults hold it
# until the process ends. Imported before `init_process_group` the module holds None, and the threads end. They matter
# at shutdown: one that wants the interpreter back while it goes down takes the process with it, now and then.
#
# Seen with torch 2.14.1 (about 6 GB, 2 minutes), threads of gloo after the group was destroyed:
#   guessed: 0 0; found: 3 0
#
# Exit 0: as recorded. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q torch==2.14.1 numpy==2.4.6
cat > train.py <<'PYTHON'
import gc
import sys
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

if "early" in sys.argv:
    import torch.distributed.nn.functional


def train():
    model = DistributedDataParallel(torch.nn.Linear(2, 2))
    model(torch.ones(1, 2)).sum().backward()


torch.distributed.init_process_group("gloo", init_method=f"file://{Path('store').resolve()}", rank=0, world_size=1)
train()
torch.distributed.destroy_process_group()
gc.collect()
print(sum("gloo" in name.read_text() for name in Path("/proc/self/task").glob("*/comm")))
PYTHON
echo "torch $(venv/bin/python -c 'import torch; print(torch.__version__)')"
late=$(venv/bin/python train.py)
early=$(venv/bin/python train.py early)
echo "guessed: 0 0; found: $late $early"
[ "$late $early" = "3 0" ]
