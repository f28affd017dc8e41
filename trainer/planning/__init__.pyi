from .step_estimate import Placement as Placement
from .step_estimate import StepEstimate as StepEstimate
from .step_estimate import estimate_step as estimate_step
from .step_estimate import make_batch as make_batch
