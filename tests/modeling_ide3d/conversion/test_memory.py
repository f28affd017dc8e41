"""A conversion takes no more memory than one shard of its source, and 10 %."""

import sys

import pytest
from benchmarks.conversion_memory import count_equal_files, measure, write_checkpoint


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the kernel's record of the resident size")
@pytest.mark.parametrize("pickled", [False, True])
def test_peak_memory_is_one_shard(tmp_path, pickled):
    shard = write_checkpoint(tmp_path / "original", hidden_size=512, pickled=pickled)
    for kind, source, target in (("convert", "original", "converted"), ("restore", "converted", "restored")):
        before, peak = measure(kind, tmp_path / source, tmp_path / target)
        assert peak - before <= 1.1 * shard, kind
    assert count_equal_files(tmp_path / "original", tmp_path / "restored") == (5, 5)
