"""Samples of chats from files: every kind of media goes through the collator; faults name the row."""

import numpy as np
import pytest
import torch
from chat_files import mixed_rows, say, write_media, write_rows
from training_samples import build_collator

from trainer.data import ChatDataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_media(tmp_path_factory.mktemp("media"))
    write_rows(folder / "chats.jsonl", mixed_rows())
    return folder


@pytest.fixture(scope="module")
def samples(folder):
    return ChatDataset([str(folder / "chats.jsonl")], num_frames=3, cache_dir=folder / "cache")


def test_samples_of_all_kinds(samples):
    assert len(samples) == 6
    counts = [len(sample.get("frames", ())) for sample in samples]
    assert counts == [3, 3, 0, 3, 0, 2] and len(samples[2]["images"]) == 2
    assert set(samples[1]) >= {"depth", "intrinsics", "camera_to_world", "frame_names"}
    assert samples[0]["scene_id"] == "room.mp4" and samples[4]["scene_id"].endswith("chats.jsonl, line 5")


def test_they_make_one_batch(samples):
    """The answers alone are learned, and the geometry of the scan is there."""
    collator = build_collator()
    batch = collator([samples[index] for index in range(6)])
    assert batch["has_geometry"].tolist() == [False, True, False, False, False, False]
    assert batch["video_frame_mask"].sum(1).tolist() == [3, 3, 3, 2] and len(batch["pixel_values"]) == 2
    learned = [row[row >= 0] for row in batch["labels"]]
    words = collator.processor.tokenizer.batch_decode(learned)
    assert [text.replace(" ", "").partition("<|im_end|>")[0] for text in words[:2]] == ["Itisfar.", "Itisnear."]


def test_a_sample_is_what_a_user_would_give(samples, folder):
    """The collator makes the same batch of hand-made frames and messages."""
    collator = build_collator()
    sample = samples[3]
    by_hand = {
        "messages": say([{"type": "video"}, {"type": "text", "text": "What is it?"}], "A ball."),
        "frames": np.asarray(sample["frames"]),
    }
    given, expected = collator([sample]), collator([by_hand])
    assert all(torch.equal(given[key], expected[key]) for key in expected)


def test_media_of_another_folder(folder, tmp_path):
    file = write_rows(tmp_path / "chats.json", mixed_rows()[:1])
    options = {"num_frames": 2, "cache_dir": tmp_path / "cache"}
    assert len(ChatDataset([str(file)], folder, **options)[0]["frames"]) == 2
    with pytest.raises(FileNotFoundError, match=r"chats\.json, row 1: .*room\.mp4 does not exist"):
        ChatDataset([str(file)], **options)[0]


def test_geometry_on_request(folder):
    samples = ChatDataset([str(folder / "chats.jsonl")], has_geometry=False, cache_dir=folder / "cache")
    assert "depth" not in samples[1] and "frame_names" in samples[1]


def test_no_frames_cannot_be_asked_for(folder):
    with pytest.raises(ValueError, match="num_frames must be"):
        ChatDataset([str(folder / "chats.jsonl")], num_frames=0)
