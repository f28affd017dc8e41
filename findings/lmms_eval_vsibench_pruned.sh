#!/usr/bin/env bash
# lmms-eval's task `vsibench_pruned` evaluates the whole of VSI-Bench.
#
# One would guess that it takes the subset "pruned", as `vsibench_debiased` takes the subset "debiased": the data set
# has both beside "full". Its task file names "full", so that the two tasks differ by their name alone.
# The whole wheel is downloaded, nothing of it runs.
#
# Seen with lmms_eval 0.7.3 (seconds):
#   vsibench           dataset_name full
#   vsibench_debiased  dataset_name debiased
#   vsibench_pruned    dataset_name full
#
# Exit 0: as recorded. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip download -q --no-deps lmms_eval==0.7.3
cat > read.py <<'PYTHON'
import re
import sys
import zipfile
from pathlib import Path

(wheel,) = Path(".").glob("lmms_eval-*.whl")
print(wheel.name)
names = {}
with zipfile.ZipFile(wheel) as files:
    for task in ("vsibench", "vsibench_debiased", "vsibench_pruned"):
        text = files.read(f"lmms_eval/tasks/vsibench/{task}.yaml").decode()
        names[task] = re.search(r"^dataset_name: (\w+)", text, re.MULTILINE)[1]
        print(f"{task:18} dataset_name {names[task]}")
sys.exit(names != {"vsibench": "full", "vsibench_debiased": "debiased", "vsibench_pruned": "full"})
PYTHON
venv/bin/python read.py
