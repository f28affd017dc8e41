from .examination import Diagnosis as Diagnosis
from .examination import SplitState as SplitState
from .examination import examine as examine
from .examination import main as main
from .findings import Finding as Finding
