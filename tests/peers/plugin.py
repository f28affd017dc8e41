"""Plugin of pytest for the process that runs Transformers' tests: it makes their mixins importable."""

from peers.source import find_tests, import_mixins

import_mixins(find_tests())
