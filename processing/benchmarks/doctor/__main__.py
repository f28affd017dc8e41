"""Examine a benchmark folder: `python -m processing.benchmarks.doctor DATA`."""

import sys

from processing.benchmarks.doctor.examination import main

sys.exit(main())
