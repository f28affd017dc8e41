"""What trains on nothing, or on something else than is meant, is refused or told by the name of the sample."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image
from training_samples import (
    GRID,
    build_collator,
    build_model,
    chat,
    make_grounding_sample,
    make_regions,
    make_sample,
)

from trainer import IDE3DDataCollator, IDE3DTrainer, IDE3DTrainingArguments
from trainer.data.geometry_inputs import pad_teacher_features
from trainer.data.sample_keys import COLUMNS

QUESTION = chat()[0]
GOOD = make_sample(2)
FEATURES = make_sample(2, teacher=True)["teacher_features"]
POINTING = {"messages": chat("How far is <ground>?"), "region_masks": make_regions(1, 2)}


def answer(content, role="assistant"):
    return {"messages": [QUESTION, {"role": role, "content": content}]}


def spoiled(value, index=(1, 0, 0, 0)):
    features = FEATURES.astype(np.float64)
    features[index] = value
    return {"teacher_features": features}


def targets(*values):
    return {**make_grounding_sample(2), "region_targets": np.array(values)}


BAD_SAMPLES = {
    "an empty answer": (answer(""), "Message 1 of messages is an answer without words"),
    "an answer of spaces": (answer([{"type": "text", "text": " \n"}]), "is an answer without words"),
    "an answer of pixels": (answer([{"type": "video"}]), "messages have 2 video parts"),
    "an empty answer among chats": ({"messages": [chat(), chat(answer="")]}, "Message 1 of chat 1 is an answer"),
    "teacher features with NaN": (spoiled(np.nan), r"hold 1 values that are NaN or Inf, in frames \[1\]"),
    "teacher features beyond float32": (spoiled(1e300), r"hold 1 values that are NaN or Inf, in frames \[1\]"),
    "teacher features without width": ({"teacher_features": FEATURES[..., :0]}, r"must have shape \(2, 3, 3, 'C'\)"),
    "targets as probabilities": (targets(0.2, 0.1, 0.6, 0.1), "True or False, got .*threshold"),
    "targets of 5": (targets(0, 5, 0, 0), "True or False, got"),
    "targets with NaN": (targets(0, np.nan, 0, 0), "True or False, got"),
    "an object and none": (targets(0, 1, 0, 1), "mean a region and, by the last entry, no such object"),
    "a reference of 0.5": ({**POINTING, "region_references": [0.5]}, r"must be a list of the indices .* got \[0.5\]"),
    "a reference of True": ({**POINTING, "region_references": [True]}, r"must be a list of the indices"),
    "frames of 0 to 1": ({"frames": GOOD["frames"] / 255}, "of frames lie in 0 to 1, but dividing by 255 is on"),
    "frames of two sizes": ({"frames": [GOOD["frames"][0], GOOD["frames"][1, :9]]}, "one size, got .* in frames"),
    "one frame": ({"frames": GOOD["frames"][0]}, "Expected rank 4 .* for frames"),
    "names of other frames": ({"frame_names": ["0"]}, r"frame_names must be the names of 2 frames, str, got \['0'\]"),
    "a name for all frames": ({"frame_names": "ab"}, "frame_names must be the names of 2 frames"),
    "numbers for names": ({"frame_names": [0, 1]}, "frame_names must be the names of 2 frames"),
    "depth of another aspect": ({"depth": GOOD["depth"][:, :40]}, "`depth` must show the field of view"),
}
WRONG_TYPES = {
    "words for depth": ({"depth": "far"}, "`depth` must be an array of numbers, got str 'far'"),
    "ragged intrinsics": ({"intrinsics": [[1], [1, 2]]}, "`intrinsics` must be an array of numbers, got list"),
    "complex poses": ({"camera_to_world": GOOD["camera_to_world"] + 1j}, "`camera_to_world` must .* real numbers"),
    "depth of booleans": ({"depth": GOOD["depth"] > 0}, "`depth` must be numbers, got bool"),
    "teacher features of words": ({"teacher_features": ["a"]}, "`teacher_features` must be an array of numbers"),
    "teacher features of booleans": ({"teacher_features": FEATURES > 0}, "`teacher_features` must be numbers"),
    "masks of words": ({"region_masks": "a"}, "`region_masks` must be an array of numbers"),
    "references of words": ({**POINTING, "region_references": ["a"]}, "`region_references` must be an array"),
    "a number for frames": ({"frames": 5}, "frames must be an array .* got int"),
    "no pictures": ({"frames": [None, None]}, "An image is a path.* got NoneType"),
    "one picture for images": ({"images": Image.new("RGB", (8, 8))}, "images must be a list of pictures, got Image"),
}


@pytest.mark.parametrize(("fields", "message"), BAD_SAMPLES.values(), ids=BAD_SAMPLES)
def test_wrong_values_are_refused_by_the_name_of_the_sample(collator, fields, message):
    with pytest.raises(ValueError, match=f"Sample 'attic': .*{message}"):
        collator([GOOD, {**GOOD, **fields, "scene_id": "attic"}])


@pytest.mark.parametrize(("fields", "message"), WRONG_TYPES.values(), ids=WRONG_TYPES)
def test_wrong_types_are_refused_by_the_name_of_the_sample(collator, fields, message):
    with pytest.raises(TypeError, match=f"Sample 'attic': .*{message}"):
        collator([GOOD, {**GOOD, **fields, "scene_id": "attic"}])


@pytest.mark.parametrize("sample", [None, 5, "a", [], [GOOD]])
def test_a_sample_is_a_dict(collator, sample):
    with pytest.raises(TypeError, match=f"Sample 1 must be a dict with `messages`, got {type(sample).__name__}"):
        collator([GOOD, sample])


def test_one_sample_is_no_list(collator):
    with pytest.raises(ValueError, match="a list of at least one sample, got a single sample"):
        collator(GOOD)


@pytest.mark.parametrize(
    "values",
    [[0, 1, 0, 0], [0.0, 1.0, 0.0, 0.0], torch.tensor([False, True, False, False])],
    ids=["int", "float", "bool"],
)
def test_truth_values_of_any_type_are_targets(collator, values):
    batch = collator([{**make_grounding_sample(2), "region_targets": values}])
    assert batch["region_targets"].tolist() == [[False, True, False, False]]


def test_images_are_read_as_the_processor_reads_them(collator, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(pixels[..., :3]).save(tmp_path / "b.jpg", exif=turned, quality=100)
    pictures = [Image.open(tmp_path / "a.png"), Image.open(tmp_path / "b.jpg"), pixels[..., :3]]
    expected = collator.processor(images=pictures, return_tensors="pt")["pixel_values"]
    batch = collator([{"messages": chat(kind="image"), "images": [picture]} for picture in pictures])
    assert torch.equal(batch["pixel_values"], expected)
    with pytest.raises(ValueError, match="Sample 1: .* of image 0 lie in 0 to 1"):
        collator([make_sample(1), {"messages": chat(kind="image"), "images": [pixels[..., :3] / 255]}])


def test_teacher_features_of_several_types_lose_nothing():
    half, single = torch.full((1, 1, 1, 2), 0.5, dtype=torch.float16), torch.full((1, 1, 1, 2), 1e6)
    batch = pad_teacher_features([half, single], 1)["teacher_features"]
    assert batch.dtype == torch.float32 and batch.flatten(1).tolist() == [[0.5, 0.5], [1e6, 1e6]]


class TestTold:
    @pytest.fixture
    def hear(self, caplog):
        """Messages that a new collator logs about samples."""

        def collate(*samples, collator=None):
            caplog.clear()
            with caplog.at_level(logging.WARNING, logger="trainer.data_collator"):
                (collator or build_collator())(samples)
            return [record.getMessage() for record in caplog.records if record.name == "trainer.data_collator"]

        return collate

    def test_a_chat_without_an_answer_once(self, hear):
        silent = {**GOOD, "messages": [QUESTION], "scene_id": "attic"}
        (said,) = hear(GOOD, silent, silent)
        assert said.startswith("Sample 'attic': messages have no assistant message: no words are learned")
        (said,) = hear({**GOOD, "messages": [chat(), [QUESTION]]})
        assert "chats [1] of messages have no assistant message" in said
        cells = np.full((2, *GRID), "red")
        assert hear(GOOD, {**silent, "cell_words": cells}) == []

    def test_keys_of_strangers_once(self, hear):
        (said,) = hear({**GOOD, "nonsense": 1, "scene_id": "attic"}, {**GOOD, "nonsense": 2})
        assert said.startswith("Sample 'attic': the keys ['nonsense'] are not used.")
        assert hear({**dict.fromkeys(COLUMNS - {"mentions"}, 1), **GOOD}) == []
        assert hear({**GOOD, "nonsense": None}) == []

    def test_our_data_sets_have_no_keys_of_strangers(self, hear):
        from processing.benchmarks.readers.annotations import FEATURES as TASKS
        from processing.rooms.dataset import FEATURES as ROOMS

        assert hear({**dict.fromkeys({*TASKS, *ROOMS} - set(GOOD) - {"frame_names", "scene_id"}, 1), **GOOD}) == []

    def test_samples_longer_than_the_positions_once(self, hear):
        collator = build_collator()
        length = collator([GOOD])["input_ids"].shape[1]
        packed = {**GOOD, "messages": [chat()] * 8}  # each chat begins behind the video
        collator.max_length = length
        assert hear(GOOD, packed, collator=collator) == []
        collator.max_length = length - 1
        (said,) = hear(GOOD, packed, collator=collator)
        assert said.startswith(f"Sample 0 has {length} tokens, more than the {length - 1} positions")
        (said,) = hear({"messages": chat("ball " * 9000, kind=None)})
        assert "more than the 8192 positions" in said

    def test_a_trainer_gives_the_positions_of_its_model(self, tmp_path):
        args = IDE3DTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
        collator, model = build_collator(), build_model()
        IDE3DTrainer(model, args, train_dataset=[GOOD], data_collator=collator)
        assert collator.max_length == model.config.text_config.max_position_embeddings


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"label_grounding": "no"}, "label_grounding must be True"), ({"teacher": "vggt"}, "teacher must be a teacher")],
)
def test_arguments_of_the_collator(collator, fields, message):
    with pytest.raises(TypeError, match=message):
        IDE3DDataCollator(collator.processor, **fields)
