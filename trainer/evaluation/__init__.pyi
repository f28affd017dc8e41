from .metrics import METRICS as METRICS
from .metrics import load_metric as load_metric
from .results import EvaluationSettings as EvaluationSettings
from .run_comparison import compare_runs as compare_runs
from .runner import run_evaluation as run_evaluation
from .runner import score_answers as score_answers
