from .loading import METRICS as METRICS
from .loading import load_metric as load_metric
from .scores import Score as Score
