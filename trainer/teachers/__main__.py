"""Store the features of a teacher: `python -m trainer.teachers`, the same as `ide3d teachers`."""

from processing.moved import run_command

if __name__ == "__main__":
    run_command("teachers")
