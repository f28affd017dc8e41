from .asking import SceneFacts as SceneFacts
from .asking import ask_questions as ask_questions
from .baselines import Baselines as Baselines
from .scoring import score_answer as score_answer
from .wording import TYPES as TYPES
