"""What an evaluation counts: every sample once, whatever the last batches are filled up with."""

from types import SimpleNamespace

import pytest
import torch

from trainer.loop.step_statistics import drop_repeats


def processes(count, rank=0, remainder=0, is_last=True):
    """What is asked of an Accelerator."""
    state = SimpleNamespace(end_of_dataloader=is_last, remainder=remainder)
    return SimpleNamespace(num_processes=count, process_index=rank, gradient_state=state)


@pytest.fixture
def batch():
    return {
        "input_ids": torch.ones(2, 4, dtype=torch.long),
        "labels": torch.full((2, 4), 7),
        "depth": torch.ones(2, 3, 5, 5),
        "teacher_features": torch.ones(2, 3, 1, 1, 6),
        "region_targets": torch.ones(2, 2, 3, dtype=torch.bool),
    }


@pytest.mark.parametrize(("rank", "kept"), [(0, 2), (1, 1), (2, 0)])
def test_repeats_have_no_targets(batch, rank, kept):
    """Three samples are left for three processes with batches of two."""
    counted = drop_repeats(batch, processes(3, rank, remainder=3))
    assert (counted["labels"] == 7).all(1).tolist() == [row < kept for row in range(2)]
    assert (counted["labels"][kept:] == -100).all()
    assert counted["has_geometry"].tolist() == [row < kept for row in range(2)]
    assert counted["teacher_features"].amax((1, 2, 3, 4)).tolist() == [float(row < kept) for row in range(2)]
    assert counted["region_targets"].any(-1).any(-1).tolist() == [row < kept for row in range(2)]
    assert counted["input_ids"] is batch["input_ids"] and counted["depth"] is batch["depth"]
    assert (batch["labels"] == 7).all() and "has_geometry" not in batch


def test_geometry_that_does_not_count_stays_out(batch):
    batch["has_geometry"] = torch.tensor([False, True])
    assert drop_repeats(batch, processes(2, 1, remainder=3))["has_geometry"].tolist() == [False, False]


@pytest.mark.parametrize(
    "accelerator",
    [
        processes(1, remainder=1),
        processes(2, remainder=0),
        processes(2, remainder=1, is_last=False),
        processes(1, remainder=-1),
    ],
    ids=["one process", "whole batches", "not the last batch", "one process, no length"],
)
def test_nothing_is_repeated(batch, accelerator):
    assert drop_repeats(batch, accelerator) == batch


def test_a_set_without_a_length_is_refused(batch):
    with pytest.raises(ValueError, match="2 processes evaluate a data set without a length.*dispatch_batches=True"):
        drop_repeats(batch, processes(2, remainder=-1))
