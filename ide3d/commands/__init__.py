"""Subcommands of `ide3d`: options and output. What they do lives in the packages, which they import when they run."""
