#!/usr/bin/env bash
# pip says that nothing is broken, and `import pyarrow` fails: newer wheels need NumPy 2 and do not declare it.
#
# A package that asks for numpy<2 takes NumPy back in an environment that has pyarrow. One would guess that pip warns,
# as it does for other clashes, or that `pip check` does. Neither does: pyarrow has no requirement on NumPy at all, and
# its compiled module looks at the version when it is imported. `datasets`, and with it Transformers' Trainer, fail too.
#
# Seen with pyarrow 26.0.1, numpy 1.26.4, pip 23.2.1, Python 3.11:
#   pyarrow 26.0.1 declares: []
#   pip check: No broken requirements found.
#   import pyarrow: ImportError: pyarrow requires NumPy 2.0 or newer, found 1.26.4
#
# Python 3.11 or 3.12 (NumPy 1.26 has wheels for them). Exits with 0 while this is so, with 1 if it changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check pyarrow==26.0.1 2>/dev/null
"$python" -m pip install --quiet --disable-pip-version-check "numpy==1.26.4" 2>/dev/null
cd "$folder"
"$python" -m pip list 2>/dev/null | grep -E "^(pip|numpy|pyarrow) "
declared=$("$python" -c 'from importlib.metadata import requires; print([r for r in requires("pyarrow") or [] if "extra" not in r])')
echo "pyarrow 26.0.1 declares: $declared"
checked=$("$python" -m pip check || true)
echo "pip check: $checked"
told=$("$python" -c "import pyarrow" 2>&1 | tail -1 || true)
echo "import pyarrow: ${told:-works}"
[[ "$checked" == "No broken requirements found." && "$told" == *"requires NumPy 2.0 or newer"* ]]
