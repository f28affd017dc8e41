from .examination import Diagnosis as Diagnosis
from .examination import SplitState as SplitState
from .examination import examine as examine
from .findings import Finding as Finding
