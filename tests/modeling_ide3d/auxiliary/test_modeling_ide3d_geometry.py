"""The training model: one pass, loss terms where they belong, heads that stay out of the inference weights."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_samples import (
    GRID,
    TEACHER_SIZE,
    build_collator,
    build_model,
    chat,
    make_grounding_sample,
    make_mixed_batch,
    make_regions,
    make_sample,
)

from modeling_ide3d import IDE3DForConditionalGeneration
from modeling_ide3d.auxiliary import GeometricValidatorConfig, IDE3DForConditionalGenerationWithGeometry
from modeling_ide3d.auxiliary.outputs import CAMERA_TERMS, HEADS
from trainer.supervision.criterion import GeometryCriterion

TERMS = tuple(term for term in HEADS if term not in CAMERA_TERMS)  # their heads are built by a weight of theirs
PARTS = {
    "tower": "model.vision_tower.",
    "projector": "model.multi_modal_projector.",
    "newline": "model.image_newline",
    "llm": "model.language_model.",
    "lm_head": "lm_head.",
    "grounding": "grounding_head.",
    "decoder": "geometric_validator.decoder.",
    "pose": "geometric_validator.relative_pose_embedding.",
    "teacher": "teacher_projector.",
}


@pytest.fixture(scope="module")
def collator():
    return build_collator()


@pytest.fixture(scope="module")
def _model():
    model = build_model()
    model.criterion = GeometryCriterion()
    return model.eval()


@pytest.fixture
def model(_model):
    return copy.deepcopy(_model)


@pytest.fixture(scope="module")
def mixed(collator):
    return collator(make_mixed_batch())


@pytest.fixture(scope="module")
def geometric(collator):
    """Two videos with depth, poses and teacher."""
    return collator([make_sample(3, teacher=True), make_sample(3, seed=1, teacher=True)])


def gradients(model, loss):
    """Parts that a loss moves."""
    model.zero_grad()
    loss.backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().amax() > 0}
    return {part for part, prefix in PARTS.items() if any(name.startswith(prefix) for name in moved)}


def terms_of(outputs):
    return {name: outputs[name].item() for name in TERMS if outputs.get(name) is not None}


class TestOnePass:
    def test_tower_and_language_model_run_once(self, model, mixed):
        calls = {"tower": 0, "llm": 0}

        def count(name):
            return lambda *_: calls.__setitem__(name, calls[name] + 1)

        model.model.vision_tower.register_forward_hook(count("tower"))
        model.model.language_model.register_forward_hook(count("llm"))
        outputs = model(**mixed)
        assert all(value > 0 for value in terms_of(outputs).values()) and len(terms_of(outputs)) == len(TERMS)
        assert calls == {"tower": 1, "llm": 1}

    def test_the_forward_is_that_of_the_inference_model(self, model, mixed, tmp_path):
        """Bit for bit, with the heads, without them, and after saving without them."""
        outputs = model(**mixed)
        plain = build_model(validator=False, teacher_size=None).eval()
        plain.load_state_dict(model.state_dict(), strict=False)
        assert torch.equal(plain(**mixed).logits, outputs.logits)
        model.save_pretrained(tmp_path)
        inference = IDE3DForConditionalGeneration.from_pretrained(tmp_path)
        keys = ("input_ids", "attention_mask", "pixel_values_videos", "video_frame_mask", "region_masks")
        inputs = {key: mixed[key] for key in (*keys, "region_valid", "region_references")}
        # Segments are for training; what is not packed is the same.
        is_same = (mixed["attention_mask"] == 1) & (mixed["segment_ids"].amax(-1, keepdim=True) == 0)
        expected = inference(**inputs).logits
        torch.testing.assert_close(outputs.logits[is_same], expected[is_same], atol=1e-5, rtol=1e-4)

    def test_an_unpacked_batch_is_equal_to_inference_bit_for_bit(self, model, geometric, tmp_path):
        model.save_pretrained(tmp_path)
        inference = IDE3DForConditionalGeneration.from_pretrained(tmp_path)
        inputs = {key: geometric[key] for key in ("input_ids", "attention_mask", "pixel_values_videos", "labels")}
        expected, outputs = inference(**inputs), model(**geometric)
        assert torch.equal(outputs.logits, expected.logits)
        assert torch.equal(outputs.loss, expected.loss)

    def test_scores_are_those_of_ground(self, model, collator):
        batch = collator([make_grounding_sample(2), make_grounding_sample(3, regions=2, target=None)])
        keys = ("input_ids", "attention_mask", "pixel_values_videos", "video_frame_mask", "region_masks")
        expected = model.ground(**{key: batch[key] for key in (*keys, "region_valid")})
        torch.testing.assert_close(model(**batch).region_scores, expected, atol=1e-6, rtol=1e-5)

    def test_it_generates(self, model, collator):
        batch = collator([make_sample(2)])
        inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "pixel_values_videos")}
        tokens = model.generate(**inputs, max_new_tokens=4, do_sample=False)
        plain = IDE3DForConditionalGeneration(model.config).eval()
        plain.load_state_dict(model.state_dict(), strict=False)
        assert torch.equal(tokens, plain.generate(**inputs, max_new_tokens=4, do_sample=False))

    def test_tuples(self, model, geometric):
        outputs = model(**geometric)
        assert all(
            torch.equal(a, b)
            for a, b in zip(
                [v for v in model(**geometric, return_dict=False) if torch.is_tensor(v)],
                [v for v in outputs.to_tuple() if torch.is_tensor(v)],
                strict=True,
            )
        )


class TestWeights:
    def test_heads_stay_out_of_the_checkpoint(self, model, tmp_path):
        model.save_pretrained(tmp_path)
        saved = load_file(tmp_path / "model.safetensors")
        assert set(saved) == set(IDE3DForConditionalGeneration(model.config).state_dict())
        assert not list(tmp_path.glob("*.py"))
        assert "auto_map" not in (tmp_path / "config.json").read_text()

    def test_reload_starts_new_heads_as_a_new_model_does(self, model, tmp_path):
        with torch.no_grad():
            for weight in model.geometry_state_dict().values():
                weight.fill_(7.0)
        model.save_pretrained(tmp_path)
        validator = GeometricValidatorConfig.light(model.config.vision_config, layer_indices=(0, 1, 1, 2))
        loaded = IDE3DForConditionalGenerationWithGeometry.from_pretrained(
            tmp_path, validator_config=validator, teacher_size=TEACHER_SIZE
        )
        fresh, expected = build_model().state_dict(), model.state_dict()
        for name, weight in loaded.state_dict().items():
            if not name.startswith(("geometric_validator.", "teacher_projector.")):
                assert torch.equal(weight, expected[name]), name
                continue
            assert torch.isfinite(weight).all(), name
            spread = weight.std(unbiased=False).item()
            assert spread == pytest.approx(fresh[name].std(unbiased=False).item(), rel=0.5, abs=0.05), name
            if "relative_pose_embedding" in name:
                assert not weight.any(), name

    def test_geometry_state_dict_round_trip(self, model):
        other = build_model(seed=1)
        heads = {key: value.clone() for key, value in model.geometry_state_dict().items()}
        before = {key: value.clone() for key, value in other.state_dict().items()}
        other.load_geometry_state_dict(heads)
        for key, value in other.state_dict().items():
            assert torch.equal(value, heads.get(key, before[key])), key
        assert any(not torch.equal(before[key], heads[key]) for key in heads)

    def test_geometry_state_dict_of_a_gathered_state_dict(self, model):
        assert set(model.geometry_state_dict({"lm_head.weight": 0, "teacher_projector.x": 1})) == {
            "teacher_projector.x"
        }

    def test_heads_of_another_model_are_refused(self, model):
        heads = model.geometry_state_dict()
        with pytest.raises(ValueError, match=r"missing \['teacher_projector\.\S+'"):
            model.load_geometry_state_dict({k: v for k, v in heads.items() if not k.startswith("teacher")})
        with pytest.raises(ValueError, match=r"unexpected \['geometric_validator\.\S+'"):
            build_model(validator=False).load_geometry_state_dict(heads)
        wider = build_model(teacher_size=TEACHER_SIZE + 1)
        with pytest.raises(ValueError, match="other shapes .*teacher_projector"):
            wider.load_geometry_state_dict(heads)

    @pytest.mark.parametrize(
        "change", [{"vision_hidden_size": 16}, {"patch_size": 7}, {"layer_indices": (0, 1, 2, 3)}]
    )
    def test_a_validator_for_another_tower_is_refused(self, model, change):
        config = dataclasses.replace(GeometricValidatorConfig.light(model.config.vision_config), **change)
        with pytest.raises(ValueError, match="from_vision_config"):
            IDE3DForConditionalGenerationWithGeometry(model.config, config)


class TestGradients:
    """Each term moves what it should, and nothing else."""

    @pytest.mark.parametrize(
        "term, parts",
        [
            ("loss", {"tower", "projector", "newline", "llm", "lm_head"}),
            ("loss_depth", {"tower", "decoder"}),
            ("loss_overlap_l1", {"tower", "decoder"}),
            ("loss_view_consistency", {"tower", "decoder"}),
            ("loss_cross_view_depth", {"tower", "decoder", "pose"}),
            ("loss_distillation", {"tower", "projector", "newline", "llm", "teacher"}),
        ],
    )
    def test_terms(self, model, geometric, term, parts):
        assert gradients(model, model(**geometric)[term]) == parts

    def test_grounding(self, model, collator):
        batch = collator([make_grounding_sample(2), make_grounding_sample(2, target=None)])
        assert gradients(model, model(**batch).loss_grounding) == {"tower", "projector", "newline", "llm", "grounding"}

    @pytest.mark.parametrize("detach", [True, False])
    def test_references_reach_the_tower_unless_detached(self, collator, detach):
        model = build_model(detach_region_references=detach)
        batch = collator([make_sample(2, messages=chat("<ground>"), region_masks=make_regions(1, 2))])
        # Without attention to the video itself the reference is the only way from the answer to the pixels.
        video = batch["input_ids"] == model.config.video_token_id
        mask = batch["attention_mask"].masked_fill(video, 0)
        assert ("tower" in gradients(model, model(**{**batch, "attention_mask": mask}).loss)) is not detach

    def test_the_final_layer_norm_of_the_tower_is_frozen(self, model, geometric):
        """Nobody reads it; DDP would wait for its gradient."""
        outputs = model(**geometric)
        sum([outputs.loss, *(outputs[name] for name in TERMS)]).backward()
        assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
        assert not any(p.requires_grad for p in model.model.vision_tower.post_layernorm.parameters())

    def test_activation_checkpointing_changes_no_gradient(self, model, mixed):
        def run(is_checkpointed):
            copied = copy.deepcopy(model).train()
            if is_checkpointed:
                copied.activation_checkpointing_enable()
            outputs = copied(**mixed, use_cache=False)
            sum([outputs.loss, *(outputs[name] for name in TERMS)]).backward()
            return {name: p.grad for name, p in copied.named_parameters() if p.grad is not None}

        expected, actual = run(False), run(True)
        assert expected.keys() == actual.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(actual[name], gradient, atol=1e-6, rtol=1e-5, msg=name)


class TestAbsentTargets:
    @pytest.mark.parametrize(
        "sample",
        [
            make_sample(2, geometry=False),
            {"messages": chat(kind=None)},
            make_sample(2),
            make_grounding_sample(2, geometry=False),
            make_sample(1),
        ],
        ids=["video", "text", "depth", "grounding", "one frame"],
    )
    def test_every_trainable_weight_stays_in_the_graph(self, model, collator, sample):
        """All processes of a run reduce the same gradients, whatever is in their batch."""
        outputs = model.train()(**collator([sample]))
        assert set(terms_of(outputs)) == set(TERMS)
        sum([outputs.loss, *(outputs[name] for name in TERMS)]).backward()
        assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []

    def test_absent_terms_are_zero(self, model, collator):
        outputs = model(**collator([make_sample(2, geometry=False)]))
        assert terms_of(outputs) == dict.fromkeys(TERMS, 0.0)
        outputs = model(**collator([make_sample(1)]))
        assert outputs.loss_depth > 0 and outputs.loss_cross_view_depth == 0 and outputs.loss_overlap_l1 == 0

    def test_terms_of_heads_that_do_not_exist_are_left_out(self, collator):
        model = build_model(validator=False, teacher_size=None)
        model.criterion = GeometryCriterion()
        outputs = model(**collator([make_sample(2, teacher=True)]))
        assert set(terms_of(outputs)) == {"loss_grounding"}

    def test_no_labels_at_all(self, model, collator):
        batch = collator([make_sample(2, teacher=True)])
        batch["labels"].fill_(-100)
        outputs = model(**batch)
        assert outputs.loss == 0 and outputs.loss.requires_grad
        (outputs.loss + outputs.loss_depth).backward()
        assert torch.isfinite(model.lm_head.weight.grad).all()

    def test_without_a_criterion_only_the_language_loss_is_there(self, model, geometric):
        model.criterion = None
        outputs = model(**geometric)
        assert outputs.loss > 0 and terms_of(outputs) == {} and outputs.depth is None


class TestMasks:
    def test_samples_without_geometry_do_not_count(self, model, collator):
        alone = model(**collator([make_sample(3)]))
        beside = model(**collator([{"messages": chat(kind=None)}, make_sample(2, geometry=False), make_sample(3)]))
        for name in ("loss_depth", "loss_cross_view_depth", "loss_overlap_l1", "loss_view_consistency"):
            torch.testing.assert_close(alone[name], beside[name], atol=1e-6, rtol=1e-5)
        assert len(alone.cross_view_depth) == len(beside.cross_view_depth) == 3

    def test_what_is_written_into_padding_does_not_matter(self, model, collator):
        batch = collator(
            [make_sample(2, teacher=True), make_sample(3, seed=1, teacher=True), make_sample(1, geometry=False)]
        )
        expected = terms_of(model(**batch))
        batch["pixel_values_videos"][0, 2] = 9.0
        batch["depth"][0, 2] = 5.0
        batch["depth"][2] = torch.nan
        batch["camera_to_world"][0, 2] = torch.nan
        batch["intrinsics"][0, 2] = 0.0
        batch["teacher_features"][0, 2] = 3.0
        assert terms_of(model(**batch)) == expected

    def test_frames_are_paired_within_their_video_and_with_the_next_two(self, model, collator):
        outputs = model(**collator([make_sample(4), make_sample(2, seed=1)]))
        assert len(outputs.cross_view_depth) == 5 + 1

    def test_frames_that_share_nothing_are_no_pair(self, model, collator):
        apart = make_sample(2)
        apart["camera_to_world"][1, :3, :3] @= np.diag([-1.0, 1.0, -1.0]).astype(np.float32)  # looks back
        outputs = model(**collator([apart]))
        assert outputs.cross_view_depth is None and outputs.loss_cross_view_depth == 0
        assert outputs.loss_depth > 0

    def test_all_zero_teacher_features_are_no_target(self, model, collator):
        sample = make_sample(2, teacher=True)
        whole = model(**collator([sample])).loss_distillation
        sample["teacher_features"] = sample["teacher_features"].copy()
        sample["teacher_features"][1] = 0
        half = model(**collator([sample]))
        sample["teacher_features"][0] = 0
        assert model(**collator([sample])).loss_distillation == 0
        assert 0 < half.loss_distillation != whole
        assert half.teacher_prediction.shape == (2, *GRID, TEACHER_SIZE)


def test_bfloat16_and_autocast_keep_losses_in_float32(model, mixed):
    expected = terms_of(model(**mixed))
    with torch.autocast("cpu", torch.bfloat16):
        autocast = model(**mixed)
    pixels = mixed["pixel_values_videos"].bfloat16()
    half = copy.deepcopy(model).bfloat16()(**{**mixed, "pixel_values_videos": pixels})
    for outputs in (autocast, half):
        for name in TERMS:
            assert outputs[name].dtype == torch.float32, name
            assert outputs[name].item() == pytest.approx(expected[name], rel=0.1, abs=0.05), name
        assert torch.isfinite(outputs.loss) and outputs.depth.dtype == torch.float32
        sum([outputs.loss, *(outputs[name] for name in TERMS)]).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


BAD = {
    "one video a sample": lambda batch: batch.update(
        {name: batch[name].flatten()[None] for name in ("input_ids", "attention_mask", "labels")}
    ),
    "shape .B, V, 72, 72., the pixels of the vision input": lambda batch: batch.update(depth=batch["depth"][..., 2:]),
    "depth must have as many frames as the video, 3, got 2": lambda batch: batch.update(depth=batch["depth"][:, :2]),
    "depth must have one entry a sample, 2, got 1": lambda batch: batch.update(depth=batch["depth"][:1]),
    "has_geometry": lambda batch: batch.update(has_geometry=torch.ones(3, dtype=torch.bool)),
    "intrinsics must have shape": lambda batch: batch.update(intrinsics=batch["intrinsics"][:, :2]),
    "camera_to_world must have shape": lambda batch: batch.update(camera_to_world=batch["camera_to_world"][:1]),
    "teacher_features must have shape .2, 3, 3, 3, 6.": lambda batch: batch.update(
        teacher_features=batch["teacher_features"][:, :2]
    ),
    "teacher_features have 5 channels": lambda batch: batch.update(
        teacher_features=batch["teacher_features"][..., :5]
    ),
    "region_targets need region_masks": lambda batch: batch.update(region_targets=torch.ones(2, 3, dtype=torch.bool)),
    "no <ground> token to answer with": lambda batch: batch.update(
        region_targets=torch.ones(2, 2, dtype=torch.bool), region_masks=torch.ones(2, 1, 3, *GRID, dtype=torch.bool)
    ),
    "holds 1 NaN": lambda batch: batch["depth"][0, 0, 5].__setitem__(5, torch.nan),
}


@pytest.mark.parametrize("message", BAD)
def test_wrong_targets_are_refused(model, collator, message):
    batch = collator([make_sample(3, teacher=True), make_sample(3, seed=1, teacher=True)])
    BAD[message](batch)
    with pytest.raises(ValueError, match=message):
        model(**batch)


class TestPredictDepth:
    def test_shape_and_values(self, model, mixed):
        outputs = model(**mixed)
        prediction = model.predict_depth(mixed["pixel_values_videos"], mixed["video_frame_mask"])
        assert prediction.depth.shape == (4, 3, 70, 70)  # the whole patches of 72 px
        assert torch.equal(prediction.depth, outputs.depth)
        assert torch.equal(prediction.confidence, outputs.depth_confidence)
        assert (prediction.depth > 0).all() and (prediction.confidence >= 1).all()

    def test_needs_a_validator(self, mixed):
        with pytest.raises(ValueError, match="no geometric validator"):
            build_model(validator=False).predict_depth(mixed["pixel_values_videos"])
