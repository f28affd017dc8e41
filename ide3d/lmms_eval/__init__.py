"""A model and tasks for the evaluation harness lmms-eval, which finds the model by an entry point."""
