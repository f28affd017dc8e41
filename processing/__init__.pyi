from .auto_classes import IDE3DProcessor as IDE3DProcessor
from .auto_classes import IDE3DVideoProcessor as IDE3DVideoProcessor
from .posed_video import PosedVideo as PosedVideo
from .token_grid import TokenGrid as TokenGrid
