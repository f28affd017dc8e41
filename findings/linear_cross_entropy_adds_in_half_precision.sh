#!/usr/bin/env bash
# The loss of `linear_cross_entropy` in bfloat16 is off by 3 % once it computes in chunks.
#
# One would guess that a loss over chunks is as exact as one at once: `acc_dtype` is float32 for bfloat16 on a CPU, and
# the gradients are. But what the chunks' losses add up to is kept in bfloat16, which has 8 bits: a chunk that is small
# beside the sum is rounded to a multiple of 1/256 of it. With reduction="none" and a sum in float32 the loss is right.
#
# Seen with torch 2.14.1 (about 6 GB, 2 minutes), 4096 tokens, 20000 classes, chunks of 64, against float32 on the same
# rounded numbers:
#   mean, at once:                        -0.59 %
#   mean, in chunks:                      +3.14 %
#   mean, in chunks, acc_dtype float32:   +3.14 %
#   none, in chunks, averaged in float32: -0.00 %
#
# Exit 0: as recorded. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q torch==2.14.1 numpy
cat > adding.py <<'PYTHON'
import sys

import torch
from torch.nn import LinearCrossEntropyOptions
from torch.nn.functional import cross_entropy, linear_cross_entropy

print("torch", torch.__version__)
torch.manual_seed(0)
tokens, classes, width = 4096, 20000, 128
weight = (0.05 * torch.randn(classes, width)).bfloat16()
states, targets = torch.randn(tokens, width).bfloat16(), torch.randint(0, classes, (tokens,))
exact = cross_entropy(states.float() @ weight.float().T, targets).item()
chunks = {"chunking_method": None, "batch_chunk_size": 64}
ways = {
    "mean, at once": ("mean", None),
    "mean, in chunks": ("mean", LinearCrossEntropyOptions(**chunks)),
    "mean, in chunks, acc_dtype float32": ("mean", LinearCrossEntropyOptions(**chunks, acc_dtype=torch.float32)),
    "none, in chunks, averaged in float32": ("none", LinearCrossEntropyOptions(**chunks)),
}
errors = {}
for name, (reduction, options) in ways.items():
    loss = linear_cross_entropy(states.requires_grad_(), weight, targets, reduction=reduction, options=options)
    errors[name] = loss.float().mean().item() / exact - 1
    print(f"{name}: {errors[name]:+.2%}")
at_once, in_chunks, told, averaged = (abs(error) for error in errors.values())
as_recorded = in_chunks > 0.02 and told > 0.02 and at_once < 0.01 and averaged < 0.001
print("guessed: chunks change nothing; found:", "the sum is rounded" if as_recorded else "something else")
sys.exit(not as_recorded)
PYTHON
venv/bin/python adding.py
