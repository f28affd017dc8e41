"""Run a model over a benchmark: `python -m trainer.evaluation`, the same as `ide3d evaluate`."""

from processing.moved import run_command

if __name__ == "__main__":
    run_command("evaluate")
