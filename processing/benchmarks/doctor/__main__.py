"""Examine a benchmark folder: `python -m processing.benchmarks.doctor`, the same as `ide3d doctor`."""

from processing.moved import run_command

if __name__ == "__main__":
    run_command("doctor")
