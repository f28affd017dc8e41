from .criterion import GeometryCriterion as GeometryCriterion
from .geometry_supervision import GeometrySupervision as GeometrySupervision
from .supervised_trainer import SupervisedTrainer as SupervisedTrainer
from .supervised_trainer import SupervisedTraining as SupervisedTraining
from .vision_layouts import VisionLayout as VisionLayout
from .vision_layouts import find_layout as find_layout
