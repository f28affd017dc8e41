"""Notebooks, run from top to bottom: for their test, and to write anew what their cells show.

PYTHONPATH=. python tests/notebooks.py examples/ask_a_room.ipynb
"""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

REPOSITORY = Path(__file__).resolve().parents[1]


def run_notebook(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Return a notebook as it is after all its cells ran in a folder, without progress bars; the file stays."""
    notebook = nbformat.read(path, as_version=4)
    settings = {"PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    client = NotebookClient(notebook, timeout=600, record_timing=False, resources={"metadata": {"path": str(folder)}})
    client.execute(env=os.environ | settings)
    for cell in notebook.cells:
        if "outputs" in cell:  # on stderr are warnings about widgets that only this environment lacks
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata.language_info = {"name": "python"}  # without the version of the Python that ran it
    return notebook


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[1:]:
            nbformat.write(run_notebook(Path(name), Path(folder)), name)


if __name__ == "__main__":
    main()
