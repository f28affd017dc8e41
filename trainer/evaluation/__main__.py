"""Run a model over a benchmark: `python -m trainer.evaluation`, the same as `ide3d evaluate`."""

from ide3d.command import run_as

if __name__ == "__main__":
    run_as("evaluate")
