"""All doors, and the public names of the packages that they have to cover."""

from bad_inputs import benchmarks, evaluating, inputs, loading, running, scenes
from bad_inputs.cases import DOORS

__all__ = ["DOORS"]

_ = (benchmarks, evaluating, inputs, loading, running, scenes)
