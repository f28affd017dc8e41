"""Measure the rooms: `python -m processing.rooms`, the same as `ide3d rooms measure`."""

from processing.moved import run_command

if __name__ == "__main__":
    run_command("rooms", "measure")
