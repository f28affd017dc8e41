"""Does 3D emerge? A study of what geometry losses change, `python -m examples.emergence RECIPE`."""
