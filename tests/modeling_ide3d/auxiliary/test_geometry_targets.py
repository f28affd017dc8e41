"""Measured depth and cameras at the predicted pixels: no shift, for any stride and any size of the vision input."""

import copy
from types import SimpleNamespace

import pytest
import torch
from analytic_scenes import camera_to_world, intrinsics, render
from training_samples import IMAGE_SIZE, PATCH_SIZE, build_collator, build_model, chat, make_sample

from modeling_ide3d.auxiliary.geometric_validator import GeometricValidatorOutput
from modeling_ide3d.auxiliary.targets import align_to_prediction, locate_videos
from trainer.geometry import covisibility_mask, select_frame_pairs
from trainer.supervision.criterion import GeometryCriterion

COVERED = (IMAGE_SIZE // PATCH_SIZE) * PATCH_SIZE


@pytest.mark.parametrize("stride", [1, 2, 7, 14])
def test_depth_is_taken_at_the_middle_of_each_predicted_pixel(stride):
    rows, cols = torch.meshgrid(torch.arange(IMAGE_SIZE), torch.arange(IMAGE_SIZE), indexing="ij")
    size = (COVERED // stride, COVERED // stride)
    for ramp, axis in ((rows, 0), (cols, 1)):
        aligned, _ = align_to_prediction(ramp.float(), None, (COVERED, COVERED), size)
        assert aligned.shape == size
        centres = (torch.arange(size[axis]) + 0.5) * stride - 0.5
        expected = centres[:, None] if axis == 0 else centres[None]
        # Half a pixel at even strides, where the middle lies between two pixels; never more.
        assert (aligned - expected).abs().max() == (0 if stride % 2 else 0.5)
    assert aligned.max() < COVERED  # the pixels behind the last whole patch are not seen


@pytest.mark.parametrize("stride", [1, 2, 7])
def test_cameras_go_with_the_pixels(stride):
    """A point projects into the aligned picture where its own depth was put."""
    camera = intrinsics(height=IMAGE_SIZE, width=IMAGE_SIZE)
    size = (COVERED // stride, COVERED // stride)
    depth = render(camera, camera_to_world(yaw=0.1), height=IMAGE_SIZE, width=IMAGE_SIZE)
    aligned, small = align_to_prediction(depth, camera, (COVERED, COVERED), size)
    v, u = 3, 5
    z = aligned[v, u]
    point = torch.stack([(u - small[0, 2]) / small[0, 0] * z, (v - small[1, 2]) / small[1, 1] * z, z])
    place = camera @ point / z
    torch.testing.assert_close(place[:2], torch.tensor([u, v]) * float(stride) + stride // 2)
    assert depth[round(place[1].item()), round(place[0].item())] == z
    assert torch.equal(small[2], torch.tensor([0.0, 0.0, 1.0]))


def test_cameras_are_not_changed_in_place():
    camera = intrinsics()
    align_to_prediction(torch.ones(70, 70), camera, (70, 70), (35, 35))
    assert torch.equal(camera, intrinsics())


@pytest.mark.parametrize("stride", [2, 7])
def test_the_same_surface_is_covisible_at_every_stride(stride):
    camera = intrinsics(height=IMAGE_SIZE, width=IMAGE_SIZE).expand(1, 2, 3, 3)
    walk = torch.stack([camera_to_world(), camera_to_world(yaw=0.1, position=(0.3, 0.0, 0.1))])
    frames = [render(camera[0, 0], pose, height=IMAGE_SIZE, width=IMAGE_SIZE) for pose in walk]
    depth, pairs = torch.stack(frames)[None], select_frame_pairs(walk[None])
    whole = covisibility_mask(depth[..., :COVERED, :COVERED], camera, pairs)[0]
    size = (COVERED // stride, COVERED // stride)
    small_depth, small_camera = align_to_prediction(depth, camera, (COVERED, COVERED), size)
    small = covisibility_mask(small_depth, small_camera, pairs)[0]
    expected, _ = align_to_prediction(whole, None, (COVERED, COVERED), size)
    assert 0.2 < expected.float().mean() < 0.98
    # Coarser pictures see the edges of the ball less exactly.
    assert (small == expected).float().mean() > 0.9


@pytest.fixture(scope="module")
def batch():
    return build_collator()([make_sample(3), make_sample(2, seed=1)])


class TestPerfectPrediction:
    """A validator that says the truth at its own pixels has no loss."""

    @pytest.mark.parametrize("stride", [1, 2, 7])
    def test_zero_loss(self, batch, stride, monkeypatch):
        model = build_model(validator={"output_stride": stride})
        model.criterion = GeometryCriterion()
        own, _ = align_to_prediction(batch["depth"], None, (COVERED, COVERED), (COVERED // stride,) * 2)
        asked = []

        def predict(levels, patch_grid):
            assert model.geometric_validator.output_size(patch_grid) == own.shape[-2:]
            return GeometricValidatorOutput(depth=own.clamp(min=1e-3), confidence=torch.ones_like(own))

        def predict_cross_view(levels, patch_grid, sample, source, target_from_source):
            poses = batch["camera_to_world"]
            for b, s, motion in zip(sample, source, target_from_source, strict=True):
                frames = [torch.linalg.inv(poses[b, t]) @ poses[b, s] for t in range(poses.shape[1])]
                asked.append((int(b), min(range(len(frames)), key=lambda t: float((frames[t] - motion).abs().sum()))))
            return SimpleNamespace(depth=torch.stack([own[b, t] for b, t in asked]))

        monkeypatch.setattr(model.geometric_validator, "forward", predict)
        monkeypatch.setattr(model.geometric_validator, "predict_cross_view", predict_cross_view)
        outputs = model(**batch)
        assert asked == [(0, 1), (0, 2), (0, 2), (1, 1)]
        for name in ("loss_depth", "loss_cross_view_depth", "loss_overlap_l1"):
            assert outputs[name] == 0, name
        # Measured depth comes in steps, and coarse pixels cut the edge of the ball.
        assert outputs.loss_view_consistency < 0.01

    def test_a_shift_of_one_pixel_shows(self, batch):
        criterion = GeometryCriterion()
        depth = batch["depth"]
        perfect = criterion.depth_loss(depth.clamp(min=1e-3), torch.ones_like(depth), depth)
        shifted = criterion.depth_loss(depth.roll(1, -1).clamp(min=1e-3), torch.ones_like(depth), depth)
        assert perfect == 0 and shifted > 1e-3


class TestTeacher:
    @pytest.fixture
    def outputs_and_batch(self):
        collator, model = build_collator(), build_model()
        model.criterion = GeometryCriterion()
        samples = [make_sample(2, teacher=True), {"messages": chat(kind=None)}, make_sample(3, seed=1, teacher=True)]
        batch = collator(samples)
        return model, model(**batch), batch

    def test_predictions_are_read_at_the_visual_tokens_without_newlines(self, outputs_and_batch):
        model, outputs, batch = outputs_and_batch
        rows, cols = model.config.token_grid
        states = outputs.last_hidden_state[batch["input_ids"] == model.config.video_token_id]
        place = torch.arange(len(states)) % (cols + 1)
        expected = model.teacher_projector(states[place < cols])
        torch.testing.assert_close(outputs.teacher_prediction.flatten(0, 2), expected)
        assert outputs.teacher_prediction.shape[:3] == (5, rows, cols)

    def test_a_student_who_says_what_the_teacher_says_has_no_loss(self, outputs_and_batch):
        """Frame by frame and token by token, also behind a sample without a video."""
        model, outputs, batch = outputs_and_batch
        batch["teacher_features"][0, :2], batch["teacher_features"][2] = outputs.teacher_prediction.detach().split(
            [2, 3]
        )
        assert model(**batch).loss_distillation.item() == pytest.approx(0, abs=1e-6)
        assert outputs.loss_distillation > 0.5


def test_videos_are_found_beside_texts():
    video, word = 9, 1
    ids = torch.tensor([[word] * 4, [video, video, word, word], [word] * 4, [video] * 4])
    assert locate_videos(ids, video, [2, 4]).tolist() == [1, 3]
    with pytest.raises(ValueError, match=r"one video a sample, got videos of the samples \[1, 3, 3\]"):
        locate_videos(ids, video, [2, 1, 3])


def test_two_videos_in_a_chat_are_fine_without_geometry():
    """Only supervision is limited to one video a sample."""
    collator, model = build_collator(), build_model()
    model.criterion = GeometryCriterion()
    first, second = (collator([make_sample(2, seed=seed, geometry=False)]) for seed in (0, 1))
    keys = ("input_ids", "attention_mask", "labels")
    batch = {key: torch.cat([first[key], second[key]], 1) for key in keys}
    batch["pixel_values_videos"] = torch.cat([first["pixel_values_videos"], second["pixel_values_videos"]])
    assert torch.isfinite(model(**batch).loss)
    with pytest.raises(ValueError, match="one video a sample"):
        model(**batch, depth=torch.ones(1, 2, IMAGE_SIZE, IMAGE_SIZE))


def test_chunks_of_frames_change_nothing(batch):
    model = build_model()
    model.criterion = GeometryCriterion()
    chunked = copy.deepcopy(model)
    chunked.geometric_validator.config.frames_per_chunk = 2
    whole, parts = model(**batch), chunked(**batch)
    torch.testing.assert_close(whole.depth, parts.depth)
    torch.testing.assert_close(whole.cross_view_depth, parts.cross_view_depth)


class TestPaperLayout:
    """Targets as the original lays them out: whole frames on the seen pixels, masks from depth as it came."""

    @pytest.fixture
    def model(self):
        class Spy(GeometryCriterion):
            def forward(self, outputs, targets):
                self.targets = targets
                return super().forward(outputs, targets)

        model = build_model(validator={"protocol": "paper"})
        model.criterion = Spy(protocol="paper")
        return model

    def test_depth_and_masks(self, model):
        sample = make_sample(3)
        model(**build_collator(protocol="paper")([sample, make_sample(2, geometry=False)]))
        targets, depth = model.criterion.targets, torch.from_numpy(sample["depth"])
        squashed = torch.nn.functional.interpolate(depth[None], (COVERED, COVERED), mode="nearest")[0]
        assert torch.equal(targets["depth"][0], squashed) and not targets["depth"][1].any()
        poses, cameras = (torch.from_numpy(sample[key])[None] for key in ("camera_to_world", "intrinsics"))
        pairs = select_frame_pairs(poses, protocol="paper")
        masks = covisibility_mask(depth[None], cameras, pairs, protocol="paper")
        masks = torch.nn.functional.interpolate(masks[None].float(), (COVERED, COVERED), mode="nearest")[0] > 0.5
        assert targets["pairs"].batch.tolist() == [0] * len(pairs)
        assert torch.equal(targets["pairs"].covisible, masks)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"native_intrinsics": None}, "need each other"),
            ({"native_depth": torch.ones(1, 2, 8, 8)}, r"native_depth must have shape \(1, 3, h, w\)"),
            ({"native_intrinsics": torch.eye(3).expand(1, 2, 3, 3)}, "native_intrinsics must have shape"),
        ],
    )
    def test_native_parts_that_do_not_fit(self, model, changes, message):
        batch = build_collator(protocol="paper")([make_sample(3)])
        with pytest.raises(ValueError, match=message):
            model(**{**batch, **changes})


@pytest.mark.parametrize("kind", ["padded", "packed"])
def test_in_training_the_head_runs_in_front_of_labels_alone(kind):
    """Loss and gradients are those of all logits."""
    samples = [make_sample(2), make_sample(1, seed=1, messages=chat("Name it.", "It is near."))]
    if kind == "packed":
        samples[1]["messages"] = [chat(), chat("Name it.", "The ball")]
    batch, model = build_collator()(samples), build_model()
    found = []
    for is_training in (True, False):
        model.train(is_training).zero_grad()
        outputs = model(**batch)
        outputs.loss.backward()
        found.append((outputs, {name: value.grad for name, value in model.named_parameters()}))
    (short, gradients), (whole, expected) = found
    is_label = (batch["labels"][:, 1:] != -100).any(0)
    assert 0 < is_label.sum() == short.logits.shape[1] < whole.logits.shape[1] == len(is_label) + 1
    torch.testing.assert_close(short.logits, whole.logits[:, :-1][:, is_label])
    torch.testing.assert_close(short.loss, whole.loss)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-6, rtol=1e-4, msg=name)


def test_all_logits_of_a_training_pass_can_be_asked_for():
    """The loss is the same, and each label finds its logits at its own position."""
    batch, model = build_collator()([make_sample(2), make_sample(1, seed=1)]), build_model().train()
    short, whole = model(**batch), model(**batch, logits_to_keep=0)
    labels = batch["labels"]
    assert whole.logits.shape[:2] == labels.shape and short.logits.shape[1] < labels.shape[1]
    torch.testing.assert_close(whole.loss, short.loss)
    expected = torch.nn.functional.cross_entropy(whole.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(whole.loss, expected)
    first = [{key: value[:1] for key, value in batch.items()}, {key: value[1:] for key, value in batch.items()}]
    for index, single in enumerate(first):
        own = model(**{**single, "labels": None}, logits_to_keep=0).logits[0]
        torch.testing.assert_close(own, whole.logits[index], atol=1e-5, rtol=1e-4)
