"""Does 3D emerge? Study what geometry losses change: `python -m examples.emergence RECIPE`."""
