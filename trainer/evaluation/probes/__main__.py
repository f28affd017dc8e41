"""Probe the tokens of a model: `python -m trainer.evaluation.probes`, the same as `ide3d probe`."""

from ide3d.command import run_as

if __name__ == "__main__":
    run_as("probe")
