"""Probe the tokens of a model: `python -m trainer.evaluation.probes --model M --num-rooms 200`."""

from trainer.evaluation.probes.tables import main

main()
