from .convert import convert_checkpoint as convert_checkpoint
from .restore import restore_checkpoint as restore_checkpoint
