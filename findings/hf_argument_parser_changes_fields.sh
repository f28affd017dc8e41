#!/usr/bin/env bash
# HfArgumentParser changes the types in the fields of the dataclass that it is given.
#
# One would guess that a parser reads a dataclass and leaves it as it is. It resolves the types and writes what argparse
# needs back into `dataclasses.fields`: `int | None` becomes `int`, `bool | str` becomes `bool`. From then on, in the
# whole process, whoever looks at the fields (a check of types, a form, a second parser) sees another class than
# the one that was written, and whether None is allowed is lost. The annotations of the class stay as they were.
# No code of anybody else.
#
# Seen with transformers 5.24.0 (no torch needed, half a minute):
#   before: steps int | None, share float | None, mode bool | str
#   after:  steps int, share float, mode bool
#   annotations: steps int | None, share float | None, mode bool | str
#
# Exit 0: as recorded. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q transformers==5.24.0
cat > parse.py <<'PYTHON'
import sys
from dataclasses import dataclass, fields

import transformers
from transformers import HfArgumentParser

print("transformers", transformers.__version__)


@dataclass
class Arguments:
    steps: int | None = None
    share: float | None = None
    mode: bool | str = False


def told(kinds):
    return ", ".join(f"{name} {kind.__name__ if isinstance(kind, type) else kind}" for name, kind in kinds.items())


before = told({field.name: field.type for field in fields(Arguments)})
HfArgumentParser(Arguments)
after = told({field.name: field.type for field in fields(Arguments)})
annotations = told(Arguments.__annotations__)
print("before:", before)
print("after: ", after)
print("annotations:", annotations)
written = "steps int | None, share float | None, mode bool | str"
sys.exit((before, after, annotations) != (written, "steps int, share float, mode bool", written))
PYTHON
venv/bin/python parse.py 2>/dev/null
