from .prompts import build_chat as build_chat
from .prompts import build_prompt as build_prompt
from .prompts import prompt_digest as prompt_digest
from .readers.annotations import FEATURES as FEATURES
from .readers.annotations import load_task as load_task
from .readers.scenes import load_scene as load_scene
from .readers.tasks import TASKS as TASKS
from .readers.tasks import Task as Task
