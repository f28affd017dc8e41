"""The shipped nano model: a folder to load, which comes with the package."""

from pathlib import Path

__all__ = ["nano_model"]

INSTALLED = Path(__file__).parent / "nano_rooms"  # where setup.cfg puts the folder into a wheel
IN_REPOSITORY = Path(__file__).parents[1] / "examples" / "checkpoints" / "ide3d-nano-rooms"


def nano_model() -> Path:
    """Return the folder of the shipped nano model, which knows rendered rooms only.

    Raises:
        FileNotFoundError: The installation lacks the folder.
    """
    for folder in (INSTALLED, IN_REPOSITORY):
        if (folder / "config.json").is_file():
            return folder
    raise FileNotFoundError(f"Neither {INSTALLED} nor {IN_REPOSITORY} holds the nano model. Install ide3d again.")
