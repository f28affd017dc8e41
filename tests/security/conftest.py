"""What the tests of files from strangers share."""

import tracemalloc

import pytest


@pytest.fixture
def bounded():
    """Whatever a test reads, it takes little memory."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20
