"""Probe the tokens of a model: `python -m trainer.evaluation.probes`, the same as `ide3d probe`."""

from processing.moved import run_command

if __name__ == "__main__":
    run_command("probe")
