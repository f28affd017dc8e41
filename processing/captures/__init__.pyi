from .capture import Capture as Capture
from .description import CaptureState as CaptureState
from .description import describe_capture as describe_capture
from .opening import FORMATS as FORMATS
from .opening import find_capture as find_capture
from .opening import list_captures as list_captures
from .opening import open_capture as open_capture
