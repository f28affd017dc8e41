"""The notebook runs from top to bottom, and shows what its committed outputs show."""

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

from notebooks import REPOSITORY, run_notebook  # noqa: E402

NOTEBOOK = REPOSITORY / "examples" / "ask_a_room.ipynb"


def list_outputs(notebook) -> list[dict[str, str]]:
    """What the cells show, by media type."""
    return [output["data"] for cell in notebook.cells for output in cell.get("outputs", ())]


@pytest.mark.slow
def test_notebook_runs_in_another_folder_and_shows_what_is_committed(tmp_path):
    committed = nbformat.read(NOTEBOOK, as_version=4)
    shown, expected = (list_outputs(notebook) for notebook in (run_notebook(NOTEBOOK, tmp_path), committed))
    assert [set(data) for data in shown] == [set(data) for data in expected]
    assert [data["text/plain"] for data in shown] == [data["text/plain"] for data in expected]
    assert "text/markdown" in shown[-1], "the table of scores is the last"
    assert (tmp_path / "outputs" / "notebook" / "found.html").is_file()


def test_committed_outputs_are_whole_and_small():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert all(cell.outputs for cell in cells)
    assert len([data for data in list_outputs(notebook) if "image/jpeg" in data]) == 3
    assert NOTEBOOK.stat().st_size < 200_000
