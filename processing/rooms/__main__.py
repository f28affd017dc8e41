"""Measure the rooms: `python -m processing.rooms`, the same as `ide3d rooms measure`."""

from ide3d.command import run_as

if __name__ == "__main__":
    run_as("rooms", "measure")
