"""What a batch holds: tokens, labels, packed chats, privileged tensors on pixels and tokens of the vision input."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from training_samples import (
    GRID,
    HEIGHT,
    IMAGE_SIZE,
    PATCH_SIZE,
    TEACHER_SIZE,
    WIDTH,
    build_collator,
    chat,
    make_grounding_sample,
    make_mixed_batch,
    make_regions,
    make_sample,
)

from trainer import IDE3DDataCollator
from trainer.data_collator import decode_names
from trainer.teachers import PointMapTeacher


def encode(processor, sample):
    """What the processor makes of a single chat; the video is handed over in the chat itself."""
    messages = [{**message, "content": [*map(dict, message["content"])]} for message in sample["messages"]]
    for part in (part for message in messages for part in message["content"] if part["type"] == "video"):
        part["video"] = sample["frames"]
    return processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_tensors="pt", processor_kwargs={"do_sample_frames": False}
    )


def spoken(processor, batch, row):
    labels = batch["labels"][row]
    return processor.tokenizer.decode(labels[labels != -100])


class TestText:
    @pytest.mark.parametrize("views", [1, 3])
    def test_tokens_and_pixels_are_those_of_the_processor(self, collator, views):
        sample = make_sample(views)
        batch, expected = collator([sample]), encode(collator.processor, sample)
        assert torch.equal(batch["input_ids"], expected["input_ids"])
        assert torch.equal(batch["attention_mask"], expected["attention_mask"])
        assert torch.equal(batch["pixel_values_videos"], expected["pixel_values_videos"])

    def test_labels_are_what_the_assistant_says_and_its_end(self, collator):
        turns = [*chat("Where is the ball?", "It is near."), *chat("Name it.", "The ball", kind=None)]
        batch = collator([make_sample(messages=turns), make_sample(2)])
        assert spoken(collator.processor, batch, 0) == "It is near.<|im_end|>The ball<|im_end|>"
        assert spoken(collator.processor, batch, 1) == "It is near.<|im_end|>"
        is_target = batch["labels"] != -100
        assert torch.equal(batch["labels"][is_target], batch["input_ids"][is_target])
        assert not (is_target & (batch["attention_mask"] == 0)).any()

    def test_grounding_answers_are_targets_unless_switched_off(self, collator):
        samples = [make_grounding_sample(), make_sample()]
        batch = collator(samples)
        assert spoken(collator.processor, batch, 0) == "The ball is <ground>.<|im_end|>"
        for other in ({"label_grounding": False}, {"protocol": "paper"}):
            batch = build_collator(**other)(samples)
            assert (batch["labels"][0] == -100).all()
            assert (batch["labels"][1] != -100).any()
        batch = build_collator(protocol="paper", label_grounding=True)(samples)
        assert (batch["labels"][0] != -100).any()

    def test_text_only_and_images(self, collator):
        picture = Image.new("RGB", (40, 30), (200, 10, 10))
        batch = collator([{"messages": chat(kind=None)}, {"messages": chat(kind="image"), "images": [picture]}])
        count = (batch["input_ids"] == collator.processor.image_token_id).sum(-1)
        assert count.tolist() == [0, collator.processor.tokens_per_frame]
        assert batch["pixel_values"].shape == (1, 3, IMAGE_SIZE, IMAGE_SIZE)
        assert "pixel_values_videos" not in batch

    def test_frames_as_pictures_arrays_and_lists_are_the_same(self, collator):
        array = make_sample(2)
        pictures = {**array, "frames": [Image.fromarray(frame) for frame in array["frames"]]}
        arrays = {**array, "frames": list(array["frames"])}
        tensor = {**array, "frames": torch.from_numpy(array["frames"])}
        expected = collator([array])
        for sample in (pictures, arrays, tensor):
            batch = collator([sample])
            assert batch.keys() == expected.keys()
            for key, value in expected.items():
                assert torch.equal(batch[key], value), key

    def test_can_be_sent_to_a_worker_process(self, collator):
        collator([make_sample(1)])
        copied = pickle.loads(pickle.dumps(collator))
        assert torch.equal(copied([make_sample(1)])["input_ids"], collator([make_sample(1)])["input_ids"])


class TestMixedBatch:
    @pytest.fixture
    def batch(self, collator):
        return collator(make_mixed_batch())

    def test_frame_counts(self, batch, collator):
        assert batch["video_frame_mask"].tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 0]]
        video = (batch["input_ids"] == collator.processor.video_token_id).sum(-1)
        assert (video // collator.processor.tokens_per_frame).tolist() == [3, 1, 2, 2, 0]

    def test_equal_frame_counts_need_no_mask(self, collator):
        assert "video_frame_mask" not in collator([make_sample(2), make_sample(2, seed=1)])

    def test_geometry(self, batch):
        assert batch["has_geometry"].tolist() == [True, False, True, True, False]
        assert (batch["depth"].flatten(2).amax(-1) > 0).tolist() == [
            [True] * 3,
            [False] * 3,
            [True, True, False],
            [True, True, False],
            [False] * 3,
        ]
        # A camera that is never read is one all the same: nothing downstream divides by zero.
        assert torch.equal(batch["intrinsics"][1, 0], torch.eye(3))
        assert torch.equal(batch["camera_to_world"][2, 2], torch.eye(4))

    def test_teacher(self, batch):
        assert batch["teacher_features"].shape == (5, 3, *GRID, TEACHER_SIZE)
        present = batch["teacher_features"].flatten(2).abs().amax(-1) > 0
        assert present.any(1).tolist() == [True, False, False, True, False]
        assert not present[3, 2]

    def test_regions(self, batch):
        assert batch["region_valid"].tolist() == [
            [False] * 3,
            [False] * 3,
            [True, True, False],
            [True] * 3,
            [False] * 3,
        ]
        assert torch.equal(batch["region_masks"][2, :2, :2], torch.from_numpy(make_regions(2, 2)))
        assert not batch["region_masks"][2, 2].any() and not batch["region_masks"][2, :, 2].any()
        assert batch["region_references"].tolist() == [[-1, -1], [-1, -1], [1, 0], [-1, -1], [-1, -1]]
        # The last column is "no such object", also of a sample with fewer regions than the batch.
        assert batch["region_targets"].tolist() == [[False] * 4] * 3 + [[False, True, False, False]] + [[False] * 4]

    def test_no_such_object_is_always_the_last_column(self, collator):
        batch = collator([make_grounding_sample(regions=1, target=None), make_grounding_sample(regions=4, target=0)])
        assert batch["region_targets"].tolist() == [[False] * 4 + [True], [True] + [False] * 4]
        assert batch["region_references"].shape == (2, 0)

    def test_keys_appear_only_where_a_sample_has_them(self, collator):
        batch = collator([make_sample(2, geometry=False)])
        assert set(batch) == {"input_ids", "attention_mask", "labels", "pixel_values_videos"}

    def test_images_beside_videos_count_as_frames_of_the_regions(self, collator, model):
        """The frames of a sample's regions are those of its video and then its images, as the model reads them."""
        pictures = [Image.new("RGB", (40, 30), (200, 10, 10 * k)) for k in range(4)]
        visual = [{"role": "user", "content": [{"type": "image"}] * 4 + [{"type": "text", "text": "<ground>"}]}]
        images = {"messages": visual, "images": pictures, "region_masks": make_regions(1, 4)}
        both = chat("How far is <ground>?")
        both[0]["content"].insert(1, {"type": "image"})
        mixed = make_sample(2, messages=both, images=pictures[:1], region_masks=make_regions(1, 3))
        batch = collator([images, mixed])
        assert batch["region_masks"].shape == (2, 1, 4, *GRID)
        assert torch.isfinite(model(**batch).logits).all()


class TestGeometry:
    def ramp(self, height, width):
        """Depth that is the horizontal position of the pixel centre, in pictures (0 to 1)."""
        column = (np.arange(width, dtype=np.float32) + 0.5) / width
        return np.broadcast_to(1 + column, (1, height, width)).copy()

    @pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (24, 32), (27, 36), (151, 201)])
    def test_depth_of_any_size_lands_on_the_pixels_of_the_vision_input(self, collator, size):
        batch = collator([make_sample(1, depth=self.ramp(*size))])
        expected = 1 + (torch.arange(IMAGE_SIZE) + 0.5) / IMAGE_SIZE
        error = batch["depth"][0, 0] - expected
        # The nearest measurement is at most half a measured pixel away, and on average not to one side.
        assert error.abs().max() <= 0.5 / size[1] + 1e-6
        assert abs(error.mean()) < 0.1 / size[1]

    def test_paper_squashes_the_whole_frame_onto_the_seen_pixels_by_corners(self):
        seen = IMAGE_SIZE // PATCH_SIZE * PATCH_SIZE
        batch = build_collator(protocol="paper")([make_sample(1, depth=self.ramp(24, 32))])
        expected = 1 + ((torch.arange(seen) * 32 // seen) + 0.5) / 32
        torch.testing.assert_close(batch["depth"][0, 0, :seen, :seen], expected.expand(seen, -1))
        assert not batch["depth"][0, 0, seen:].any() and not batch["depth"][0, 0, :, seen:].any()

    def test_paper_keeps_depth_as_it_came_with_its_own_cameras(self):
        sample = make_sample(2, depth=np.concatenate([self.ramp(24, 32)] * 2))
        batch = build_collator(protocol="paper")([sample, make_sample(1, geometry=False)])
        assert torch.equal(batch["native_depth"][0], torch.from_numpy(sample["depth"]))
        assert not batch["native_depth"][1].any()
        point = torch.tensor([0.3, -0.2, 2.0])
        frame, native, squashed = (
            (camera @ point / 2.0)[:2]
            for camera in (
                torch.from_numpy(sample["intrinsics"][0]),
                batch["native_intrinsics"][0, 0],
                batch["intrinsics"][0, 0],
            )
        )
        seen = IMAGE_SIZE // PATCH_SIZE * PATCH_SIZE
        torch.testing.assert_close(native, (frame + 0.5) / 2 - 0.5)
        torch.testing.assert_close(squashed, (frame + 0.5) * torch.tensor([seen / WIDTH, seen / HEIGHT]) - 0.5)
        assert "native_depth" not in build_collator()([sample])

    def test_paper_takes_depth_of_one_size(self):
        samples = [make_sample(1), make_sample(1, depth=self.ramp(24, 32))]
        with pytest.raises(ValueError, match=r"one size in a batch, got \[\(24, 32\), \(48, 64\)\]"):
            build_collator(protocol="paper")(samples)

    def test_poses_need_not_be_rigid_in_paper(self):
        sample = make_sample(1)
        sample["camera_to_world"] = sample["camera_to_world"] * np.float32(1.5)
        assert "depth" in build_collator(protocol="paper")([sample])
        with pytest.raises(ValueError, match="not a rigid motion"):
            build_collator()([sample])

    def test_names_go_along_where_samples_have_them(self, collator):
        batch = collator([make_sample(1, scene_id="grenier \u00e9troit"), make_sample(1)])
        assert decode_names(batch["sample_names"]) == ["grenier \u00e9troit", "1"]

    def test_zeros_stay_zeros_and_do_not_mix_in(self, collator):
        depth = np.full((1, 24, 32), 2.0, np.float32)
        depth[:, :, ::2] = 0
        assert set(collator([make_sample(1, depth=depth)])["depth"].unique().tolist()) == {0.0, 2.0}

    def test_intrinsics_see_the_same_points_after_the_resize(self, collator):
        sample = make_sample(2)
        batch = collator([sample])
        point = torch.tensor([0.3, -0.2, 2.0])
        before = torch.from_numpy(sample["intrinsics"][0]) @ point / 2.0
        after = batch["intrinsics"][0, 0] @ point / 2.0
        scale = torch.tensor([IMAGE_SIZE / WIDTH, IMAGE_SIZE / HEIGHT])
        torch.testing.assert_close(after[:2], (before[:2] + 0.5) * scale - 0.5)

    def test_frames_with_channels_first_have_the_same_cameras(self, collator):
        sample = make_sample(2)
        turned = collator([{**sample, "frames": sample["frames"].transpose(0, 3, 1, 2).copy()}])
        for key, value in collator([sample]).items():
            assert torch.equal(turned[key], value), key

    def test_poses_are_kept(self, collator):
        sample = make_sample(3)
        assert torch.equal(collator([sample])["camera_to_world"][0], torch.from_numpy(sample["camera_to_world"]))

    def test_a_teacher_fills_in_for_samples_that_bring_no_features(self):
        teacher = PointMapTeacher()
        batch = build_collator(teacher=teacher)([make_sample(2), make_sample(3, geometry=False), make_sample(1)])
        present = batch["teacher_features"].flatten(2).abs().amax(-1) > 0
        assert present.tolist() == [[True, True, False], [False] * 3, [True, False, False]]
        assert batch["teacher_features"].shape[-1] == teacher.feature_size

    def test_read_only_arrays_are_taken_without_a_warning(self, collator, recwarn):
        sample = make_sample(2, teacher=True, region_masks=make_regions(1, 2), messages=chat("How far is <ground>?"))
        for value in sample.values():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
        collator([sample])
        assert not [warning for warning in recwarn if "writable" in str(warning.message)]


def broken(value, *index):
    """Depth of a good sample with one value replaced."""
    depth = make_sample(2)["depth"]
    depth[index] = value
    return depth


def scaled_poses():
    poses = make_sample(2)["camera_to_world"]
    poses[1, :3, :3] *= 1.2
    return poses


GOOD = make_sample(2)
BAD_SAMPLES = {
    "messages is empty": {"messages": []},
    "1 video parts and the sample 0 videos": {"messages": chat()},
    "0 video parts and the sample 1 videos": {**GOOD, "messages": chat(kind=None)},
    "2 video parts": {**GOOD, "messages": [*chat(), *chat()]},
    "1 image parts and the sample 0 images": {"messages": chat(kind="image")},
    "got file names": {"messages": chat(), "frames": Path("video.mp4")},
    "got file names. Read": {"messages": chat(), "frames": ["1.png", "2.png"]},
    "a list of messages with role and content, got 'hello'": {**GOOD, "messages": "hello"},
    "a list of messages with role and content, got {'content": {**GOOD, "messages": [{"content": "hello"}]},
    "template refuses the messages: .* got audio": {
        **GOOD,
        "messages": [{"role": "user", "content": [{"type": "audio"}]}],
    },
    "frames is empty": {"messages": chat(), "frames": []},
    "Got 2 frames but 3 depth maps": {**GOOD, "depth": make_sample(3)["depth"]},
    "Got 2 frames but 3 poses": {**GOOD, "camera_to_world": make_sample(3)["camera_to_world"]},
    "got only": {**GOOD, "intrinsics": None},
    "must be in metres, but its median is": {**GOOD, "depth": GOOD["depth"] * 1000},
    "values that are NaN or Inf": {**GOOD, "depth": broken(np.nan, 0, 3, 3)},
    "negative values": {**GOOD, "depth": broken(-1.0, 1, 0, 0)},
    "is not a rigid motion": {**GOOD, "camera_to_world": scaled_poses()},
    r"`camera_to_world` of frames \[0, 1\] is not finite, it holds NaN": {
        **GOOD,
        "camera_to_world": np.full((2, 4, 4), np.nan),
    },
    "focal length is not positive": {**GOOD, "intrinsics": np.zeros((2, 3, 3))},
    r"`depth` must have shape \(2, h, w\)": {**GOOD, "depth": GOOD["depth"][:, None]},
    r"`intrinsics` must have shape \(2, 3, 3\)": {**GOOD, "intrinsics": np.stack([np.eye(4)] * 2)},
    r"`camera_to_world` must have shape \(2, 4, 4\)": {**GOOD, "camera_to_world": np.zeros((2, 3, 4))},
    "need the `frames`": {
        "messages": chat(kind=None),
        "depth": GOOD["depth"],
        **{key: GOOD[key] for key in ("intrinsics", "camera_to_world")},
    },
    r"region_masks must be bool of shape \(N, 2, 3, 3\)": {**GOOD, "region_masks": np.zeros((1, 2, 4, 4), bool)},
    "region_masks must be bool of shape": {**GOOD, "region_masks": make_regions(1, 3)},
    "region_masks must be bool": {**GOOD, "region_masks": make_regions(1, 2).astype(np.float32)},
    r"teacher_features must have shape \(2, 3, 3, 'C'\)": {**GOOD, "teacher_features": np.zeros((2, 4, 4, 6))},
    r"region_targets must be bool \(4,\)": make_grounding_sample(region_targets=[True, False]),
    "with a true entry": make_grounding_sample(region_targets=[False] * 4),
    "region_references must name one of 2 regions": {
        **GOOD,
        "messages": chat("<ground>"),
        "region_masks": make_regions(2, 2),
        "region_references": [2],
    },
    "region_references need region_masks": {**GOOD, "messages": chat("<ground>"), "region_references": [0]},
    "region_targets need region_masks": make_grounding_sample(region_masks=None),
    "0 <ground> tokens for 2 references": {**GOOD, "region_masks": make_regions(2, 2)},
    "no <ground> token to answer with": make_grounding_sample(messages=chat()),
}


class TestBadInput:
    @pytest.mark.parametrize("index", range(len(BAD_SAMPLES)), ids=list(BAD_SAMPLES))
    def test_the_error_names_the_cause_and_the_sample(self, collator, index):
        message, sample = list(BAD_SAMPLES.items())[index]
        with pytest.raises(ValueError, match=message) as error:
            collator([GOOD, {**sample, "scene_id": "attic"}])
        assert str(error.value).startswith("Sample 'attic': ")
        with pytest.raises(ValueError, match="Sample 1: "):
            collator([GOOD, sample])

    @pytest.mark.parametrize(
        "frames, message",
        [
            (np.full((2, 8, 8, 3), np.nan, np.float32), "NaN"),
            (np.zeros((2, 0, 8, 3), np.uint8), "at least one pixel"),
            (np.zeros((2, 8, 8), np.uint8), "shape|channels"),
        ],
    )
    def test_broken_frames(self, collator, frames, message):
        with pytest.raises(ValueError, match=message):
            collator([{"messages": chat(), "frames": frames}])

    def test_no_samples(self, collator):
        with pytest.raises(ValueError, match="at least one sample"):
            collator([])

    def test_samples_without_messages(self, collator):
        with pytest.raises(ValueError, match="Sample 0: messages is missing"):
            collator([{"frames": GOOD["frames"]}])

    def test_a_tokenizer_that_cannot_pad(self):
        collator = build_collator()
        collator.processor.tokenizer.pad_token = None
        with pytest.raises(ValueError, match="no padding token"):
            collator([make_sample(1)])

    def test_teachers_of_different_width(self, collator):
        other = make_sample(2, teacher_features=np.ones((2, *GRID, TEACHER_SIZE + 1), np.float32))
        with pytest.raises(ValueError, match="Sample 1: .*7.*6 channels"):
            collator([make_sample(2, teacher=True), other])

    def test_pictures_inside_a_chat(self, collator):
        messages = chat(kind="image")
        messages[0]["content"][0]["image"] = Image.new("RGB", (8, 8))
        with pytest.raises(ValueError, match="Sample 0: .*images"):
            collator([{"messages": messages, "images": [Image.new("RGB", (8, 8))]}])

    def test_an_unknown_protocol(self, collator):
        with pytest.raises(ValueError, match="protocol"):
            IDE3DDataCollator(collator.processor, protocol="original")
