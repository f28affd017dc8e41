"""Store the features of a teacher: `python -m trainer.teachers`, the same as `ide3d teachers`."""

from ide3d.command import run_as

if __name__ == "__main__":
    run_as("teachers")
