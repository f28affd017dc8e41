"""A folder that runs as a Space of the Hub: the page, the packages and the shipped model."""

import importlib.metadata
import shutil
from pathlib import Path

from huggingface_hub import SpaceCard, SpaceCardData

from ide3d.nano import nano_model
from processing.writing import whole_folder, write_text

__all__ = ["write_space"]

PACKAGES = ("ide3d", "modeling_ide3d", "processing", "trainer")
PYTHON = "3.11"
ENTRY = '''"""The page of IDE3D as a Space."""

from ide3d.app.page import launch_page
from ide3d.app.settings import PageSettings
from ide3d.nano import nano_model

launch_page(PageSettings(models={models}))
'''
WORDS = """
# Ask about a room

Upload a video of a room, ask about it, click an object, or type what to find. The shipped model has seen rendered
rooms alone: its answers about a real room are not to be trusted.
"""


def write_space(target: str | Path, models: tuple[str, ...] = ()) -> Path:
    """Write a Space that runs as it stands.

    Push the folder to the Hub, or run its `app.py`. It holds copies of the four packages and the shipped
    model. Visitors choose among the models named here alone.

    Args:
        target: Folder to write; there must be none yet, or an empty one.
        models: Names on the Hub that the page offers; default: the shipped model.

    Returns:
        The folder.

    Raises:
        FileExistsError: If the folder is there and not empty.
        ValueError: If a model is a local folder, which a Space does not have.
    """
    if folders := [name for name in models if Path(name).exists()]:
        raise ValueError(f"A Space has no folder {folders[0]}: push the export first, and name it as on the Hub.")
    with whole_folder(target) as folder:
        for name in PACKAGES:
            source = Path(__file__).resolve().parents[2] / name
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "nano_rooms"))
        shutil.copytree(nano_model(), folder / "ide3d" / "nano_rooms", ignore=shutil.ignore_patterns("__pycache__"))
        names = ", ".join([*map(repr, models)] or ["str(nano_model())"])
        write_text(folder / "app.py", ENTRY.format(models=f"({names},)"))
        write_text(folder / "requirements.txt", "\n".join(_list_requirements()) + "\n")
        write_text(folder / "README.md", str(_write_card(models)) + "\n")
    return Path(target)


def _list_requirements() -> list[str]:
    """Return what the packages need, and the page beside gradio, which the Space brings."""
    needed = importlib.metadata.requires("ide3d") or []
    return [line for line in needed if "extra ==" not in line]


def _write_card(models: tuple[str, ...]) -> SpaceCard:
    data = SpaceCardData(
        title="Ask about a room",
        sdk="gradio",
        sdk_version=importlib.metadata.version("gradio"),
        python_version=PYTHON,
        app_file="app.py",
        license="apache-2.0",
        models=list(models) or None,
        tags=["3d", "video-question-answering"],
    )
    return SpaceCard(f"---\n{data.to_yaml()}\n---\n{WORDS}")
