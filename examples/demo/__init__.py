"""The demo: the shipped nano model is asked and fine-tuned, `python -m examples.demo`."""
