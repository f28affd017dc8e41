"""Print the folder of the task files, for `lmms-eval --include_path`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.stdout.write(f"{Path(__file__).parent / 'tasks'}\n")
