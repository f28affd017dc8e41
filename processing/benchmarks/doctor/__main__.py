"""Examine a benchmark folder: `python -m processing.benchmarks.doctor`, the same as `ide3d doctor`."""

from ide3d.command import run_as

if __name__ == "__main__":
    run_as("doctor")
