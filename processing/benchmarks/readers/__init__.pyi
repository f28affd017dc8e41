from .annotations import FEATURES as FEATURES
from .annotations import load_task as load_task
from .scenes import load_scene as load_scene
from .tasks import TASKS as TASKS
from .tasks import Task as Task
from .teacher import load_teacher_features as load_teacher_features
