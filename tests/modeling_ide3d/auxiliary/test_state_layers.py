"""Hidden states by name: which there are, where they lie, and what projectors of several make of them."""

import copy
import math

import pytest
import torch
from training_samples import GRID, IMAGE_SIZE, PATCH_SIZE, POOL, TEACHER_SIZE, build_collator, build_model, make_sample

from modeling_ide3d import IDE3DForConditionalGeneration
from modeling_ide3d.auxiliary import IDE3DForConditionalGenerationWithGeometry, TeacherProjector
from modeling_ide3d.auxiliary.state_layers import LayerProjectors, StateLayers, build_projector, pool_patches
from processing.token_grid import TokenGrid
from processing.token_pooling import pool_teacher_features
from trainer.supervision.criterion import GeometryCriterion

LAYERS = ("vision.0", "vision.2", "language.1", "language.2")
SIZES = StateLayers(vision_layers=2, vision_size=3, language_layers=4, language_size=5)
CAMERAS = frozenset({"loss_pose", "loss_scale"})


class TestNames:
    def test_each_state_has_its_width(self):
        assert SIZES.final == "language.4"
        assert [SIZES.width(layer) for layer in ("vision.0", "vision.2", "language.0", "language.4")] == [3, 3, 5, 5]
        assert SIZES.check_list(["vision.2", "language.0"], "x") == ("vision.2", "language.0")

    @pytest.mark.parametrize(
        "layer", ["vision.3", "language.5", "language.-1", "tower.1", "vision", "vision.02", "vision.²", "6", ""]
    )
    def test_a_state_that_there_is_not_is_refused_by_name(self, layer):
        with pytest.raises(ValueError, match=r"camera_layer: .* vision\.2, .* to language\.4"):
            SIZES.check(layer, "camera_layer")

    @pytest.mark.parametrize("layers", [[], ["vision.1", "vision.1"]])
    def test_a_list_names_states_once(self, layers):
        with pytest.raises(ValueError, match="each once"):
            SIZES.check_list(layers, "distillation_layers")

    @pytest.mark.parametrize("layers", ["vision.1", 6, [6], {"vision.1": 1}])
    def test_names_are_texts_in_a_list(self, layers):
        with pytest.raises(TypeError, match="distillation_layers (must be|takes)"):
            SIZES.check_list(layers, "distillation_layers")


class TestPooling:
    def test_a_cut_patch_counts_by_its_shares(self):
        """Two cells of 1.5 patches: the middle one belongs half to each."""
        row = torch.tensor([0.0, 3.0, 9.0]).view(1, 1, 3, 1)
        assert pool_patches(row, (1, 2)).flatten().tolist() == pytest.approx([1.0, 7.0])

    def test_whole_patches_are_averaged_and_one_grid_stays(self):
        states = torch.arange(32.0).view(2, 4, 4, 1)
        pooled = pool_patches(states, (2, 2))
        assert pooled[0].flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
        assert pool_patches(states, (4, 4)) is states

    def test_students_and_teachers_are_laid_on_tokens_alike(self):
        """The tower sees 70 of 72 pixels as 5 x 5 patches; a token is 5/3 of them a side."""
        grid = TokenGrid((IMAGE_SIZE, IMAGE_SIZE), PATCH_SIZE, POOL)
        patches = torch.randn(2, 5, 5, 4, generator=torch.Generator().manual_seed(0))
        covered = 5 * PATCH_SIZE / IMAGE_SIZE
        teacher = pool_teacher_features(patches, grid, window=(0.0, 0.0, covered, covered))
        torch.testing.assert_close(pool_patches(patches, GRID), teacher)


class TestProjectors:
    def test_by_hand(self):
        """The norm makes -1 and 1 of 2 and 6; GELU(1) = 0.841345."""
        head = LayerProjectors({"vision.1": 2, "language.3": 2}, teacher_size=1)
        for scale, projector in zip((1.0, 10.0), head.projectors.values(), strict=True):
            with torch.no_grad():
                projector.linear_1.weight.zero_()
                projector.linear_1.weight[0, 1] = 1.0
                projector.linear_2.weight.fill_(scale)
                projector.linear_2.bias.fill_(0.5)
        patches = torch.tensor([[1.0, 7.0], [3.0, 5.0]]).view(1, 1, 2, 2)  # their mean is 2 and 6
        states = {"vision.1": patches, "language.3": torch.tensor([200.0, 600.0]).view(1, 1, 1, 2)}
        gelu = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
        assert gelu == pytest.approx(0.841345, abs=1e-6)
        projected = head(states, (1, 1))
        assert projected.shape == (2, 1, 1, 1, 1)
        assert projected.flatten().tolist() == pytest.approx([0.5 + gelu, 0.5 + 10 * gelu], abs=1e-5)

    def test_the_final_states_alone_have_the_projector_of_the_original(self):
        head = build_projector(SIZES, 7, [SIZES.final])
        assert isinstance(head, TeacherProjector) and head.teacher_size == 7
        several = build_projector(SIZES, 7, ["vision.1", SIZES.final])
        assert several.layers == ("vision.1", SIZES.final) and several.teacher_size == 7


@pytest.fixture(scope="module")
def batch():
    return build_collator()([make_sample(3, teacher=True), make_sample(2, seed=1, teacher=True)])


def train_on(model, layers=None, camera=None, terms=("loss_distillation",)):
    model.read_layers(layers, camera)
    if CAMERAS & set(terms):
        for name in ("pose_head", "scale_head"):
            model.add_camera_head(name)
    model.criterion = GeometryCriterion()
    model.criterion.terms = frozenset(terms)
    return model


def moved(model, loss):
    model.zero_grad()
    loss.backward()
    return {name for name, weight in model.named_parameters() if weight.grad is not None and weight.grad.any()}


class TestTrainingModel:
    @torch.no_grad()
    def test_projections_are_of_the_states_that_the_model_itself_returns(self, batch):
        model = train_on(build_model().eval(), LAYERS)
        outputs = model(**batch)
        keys = ("input_ids", "attention_mask", "pixel_values_videos", "video_frame_mask")
        inputs = {key: batch[key] for key in keys}
        told = IDE3DForConditionalGeneration.forward(model, **inputs, output_hidden_states=True)
        vision = model.get_video_features(
            batch["pixel_values_videos"], batch["video_frame_mask"], output_hidden_states=True
        )
        rows, cols = model.config.token_grid
        is_visual = batch["input_ids"] == model.config.video_token_id
        states = {}
        for layer in LAYERS:
            number = int(layer[-1])
            if layer.startswith("vision"):
                states[layer] = vision.hidden_states[number].unflatten(1, model.config.patch_grid)
            else:
                tokens = told.hidden_states[number][is_visual].unflatten(0, (-1, rows, cols + 1))
                states[layer] = tokens[:, :, :cols]
        assert outputs.teacher_prediction.shape == (len(LAYERS), 5, *GRID, TEACHER_SIZE)
        torch.testing.assert_close(outputs.teacher_prediction, model.teacher_projector(states, GRID))
        assert outputs.hidden_states is None
        asked = model(**batch, output_hidden_states=True)
        assert len(asked.hidden_states) == 3 and torch.equal(asked.loss_distillation, outputs.loss_distillation)

    @torch.no_grad()
    def test_the_term_is_the_mean_over_the_layers(self, batch):
        model = train_on(build_model().eval(), LAYERS)
        outputs, teacher = model(**batch), model.build_targets(**batch).tensors["teacher_features"]
        alone = [model.criterion.distillation_loss(layer, teacher) for layer in outputs.teacher_prediction]
        assert outputs.loss_distillation == pytest.approx(sum(alone).item() / len(LAYERS))
        assert len({round(value.item(), 6) for value in alone}) == len(LAYERS)

    def test_a_term_on_a_layer_moves_what_lies_before_it(self, batch):
        layers = "model.vision_tower.encoder.layers.1.", "model.language_model.layers.1."
        for chosen, is_moved in (
            (["vision.1"], [False, False]),
            (["vision.2"], [True, False]),
            (["language.1"], [True, False]),
            (["language.1", "language.2"], [True, True]),
        ):
            model = train_on(build_model().train(), chosen)
            names = moved(model, model(**batch).loss_distillation)
            assert [any(name.startswith(layer) for name in names) for layer in layers] == is_moved, chosen
            assert {name for name in model.geometry_state_dict() if "teacher" in name} <= names

    @pytest.mark.parametrize("layer", ["vision.1", "language.1", None])
    def test_cameras_are_read_from_the_chosen_layer(self, batch, layer):
        model = train_on(build_model().train(), camera=layer, terms=CAMERAS)
        outputs = model(**batch)
        names = moved(model, outputs.loss_pose + outputs.loss_scale)
        reaches_language_model = any(name.startswith("model.language_model.layers.0.") for name in names)
        assert reaches_language_model == (layer != "vision.1")
        assert any(name.startswith("model.language_model.layers.1.") for name in names) == (layer is None)

    @torch.no_grad()
    def test_the_scale_of_a_video_is_that_of_its_mean_patch(self, batch):
        model = train_on(build_model().eval(), camera="vision.1", terms=CAMERAS)
        outputs = model(**batch)
        states = model.get_video_features(
            batch["pixel_values_videos"], batch["video_frame_mask"], output_hidden_states=[1]
        ).hidden_states[1]
        means = torch.stack([states[:3].mean((0, 1)), states[3:].mean((0, 1))])
        torch.testing.assert_close(outputs.scale, model.scale_head(means), atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize("is_reentrant", [False, True])
    def test_checkpointed_activations_give_the_same_gradients(self, batch, is_reentrant):
        found = []
        for is_checkpointed in (False, True):
            model = train_on(build_model().train(), LAYERS, "language.1", ("loss_distillation", *CAMERAS))
            if is_checkpointed:
                model.activation_checkpointing_enable({"use_reentrant": is_reentrant})
            if is_reentrant:
                model.enable_input_require_grads()
            outputs = model(**batch)
            (outputs.loss_distillation + outputs.loss_pose).backward()
            found.append({name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None})
        torch.testing.assert_close(*found)

    def test_features_that_were_encoded_before_have_no_inner_states(self, batch):
        model = train_on(build_model().eval(), ["vision.1"])
        video = model.get_video_features(batch["pixel_values_videos"], batch["video_frame_mask"])
        given = {key: value for key, value in batch.items() if key != "pixel_values_videos"}
        targets = model.build_targets(**batch)
        with pytest.raises(ValueError, match=r"read vision\.1, .* pixel_values_videos"):
            model(**given, mm_encoder_outputs={"video": video}, targets=targets)

    def test_the_model_is_built_with_layers_or_told_later(self, batch):
        config = build_model().config
        built = IDE3DForConditionalGenerationWithGeometry(config, None, TEACHER_SIZE, distillation_layers=LAYERS)
        told = build_model(validator=False)
        told.read_layers(LAYERS, None)
        assert set(built.geometry_state_dict()) == set(told.geometry_state_dict())
        projector = told.teacher_projector
        told.read_layers(LAYERS, "language.2")
        assert told.teacher_projector is projector  # what it learned stays
        assert not set(told.geometry_state_dict()) - set(told._keys_to_ignore_on_save)
        with pytest.raises(ValueError, match="need a teacher_size"):
            IDE3DForConditionalGenerationWithGeometry(config, None, None, distillation_layers=LAYERS)
        with pytest.raises(ValueError, match="no teacher projector"):
            build_model(teacher_size=None).read_layers(["vision.1"], None)

    def test_weights_of_another_layer_do_not_fit(self):
        left, right = (
            train_on(build_model(validator=False), camera=layer, terms=CAMERAS) for layer in ("vision.1", "vision.2")
        )
        with pytest.raises(ValueError, match=r"missing \['pose_head.vision_2"):
            right.load_geometry_state_dict(left.geometry_state_dict())

    def test_bfloat16_weights_get_a_projector_of_their_type(self):
        model = copy.deepcopy(build_model()).to(torch.bfloat16)
        model.read_layers(["vision.1"], None)
        assert {weight.dtype for weight in model.teacher_projector.parameters()} == {torch.bfloat16}
