#!/usr/bin/env bash
# safetensors writes the entries of its metadata in random order: the same contents are other bytes.
#
# One would guess that the same tensors with the same metadata make the same file, which is what checksums, caches by
# content and comparisons of a resumed run with an uninterrupted one rely on. Tensors are sorted, but the metadata are
# not: with two entries or more their order changes from one call to the next. With one entry files are equal.
# No code of anybody else.
#
# Seen with safetensors 0.8.0, numpy 2.4.6 (seconds):
#   1 entry of metadata: 1 digest in 40 files
#   4 entries of metadata: several digests in 40 files
#
# Exit 0: as recorded. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q safetensors==0.8.0 numpy==2.4.6
cat > write.py <<'PYTHON'
import hashlib
import sys
from importlib.metadata import version

import numpy as np
from safetensors.numpy import save

print("safetensors", version("safetensors"), "numpy", np.__version__)


def count_digests(entries):
    metadata = {f"entry {number}": "x" for number in range(entries)}
    tensors = {"weight": np.arange(4, dtype=np.float32)}
    return len({hashlib.sha256(save(tensors, metadata=metadata)).hexdigest() for _ in range(40)})


one, four = count_digests(1), count_digests(4)
print("1 entry of metadata:", one, "digest in 40 files")
print("4 entries of metadata:", four, "digests in 40 files")
sys.exit(one != 1 or four == 1)
PYTHON
venv/bin/python write.py
