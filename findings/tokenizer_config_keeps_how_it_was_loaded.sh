#!/usr/bin/env bash
# `tokenizer_config.json` records how the tokenizer was loaded: `local_files_only` and `is_local`.
#
# One would guess that a tokenizer which is loaded from a folder and saved again has the config of that folder. But
# Transformers keeps two arguments of loading among those of the tokenizer and writes them. Who works without a network
# (`HF_HUB_OFFLINE=1` or `local_files_only=True`) publishes `"local_files_only": true`; the config says where its
# author's files lay, and changes with the surroundings of a training.
#
# Seen with transformers 5.24.0:
#   guessed: []; found: ['is_local=True', 'local_files_only=True']
#
# Exit 0: as recorded. Exit 1: it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q transformers==5.24.0 tokenizers==0.23.3
cat > again.py <<'PYTHON'
import json
from pathlib import Path

from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

words = Tokenizer(models.WordLevel({"<end>": 0, "room": 1}, unk_token="<end>"))
PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>").save_pretrained("first")
AutoTokenizer.from_pretrained("first", local_files_only=True).save_pretrained("second")
first, second = (json.loads(Path(name, "tokenizer_config.json").read_text()) for name in ("first", "second"))
print([f"{name}={second[name]}" for name in sorted(second.keys() - first.keys())])
PYTHON
echo "transformers $(venv/bin/python -c 'import transformers; print(transformers.__version__)')"
found=$(venv/bin/python again.py)
echo "guessed: []; found: $found"
[ "$found" = "['is_local=True', 'local_files_only=True']" ]
