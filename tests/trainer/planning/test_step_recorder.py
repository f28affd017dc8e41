"""Operations and memory of a step, by part: against torch's own counter, and by hand."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from training_samples import build_model, make_grounding_sample, make_sample

from trainer.loop.model_parts import PARTS
from trainer.planning.step_recorder import GRADIENTS, STEP_PARTS, StepRecorder, count_parameters
from trainer.supervision.criterion import GeometryCriterion

MAP_TERMS = ("loss_depth", "loss_cross_view_depth", "loss_view_consistency")


def take_step(model, batch, terms=()):
    model.criterion.terms = frozenset(terms)
    outputs = model(**batch)
    sum((outputs[name] for name in terms), start=outputs.loss).backward()


@pytest.fixture
def batch(collator):
    return collator([make_sample(3, teacher=True), make_grounding_sample(3, teacher=True)])


@pytest.fixture
def trained(model):
    model.criterion = GeometryCriterion()
    return model.train()


class TestOperations:
    def test_the_sum_is_that_of_torch(self, trained, batch):
        trained.set_attn_implementation("eager")  # torch does not count the attention kernel of CPUs
        terms = [*MAP_TERMS, "loss_distillation", "loss_grounding"]
        with FlopCounterMode(display=False) as counter:
            take_step(trained, batch, terms)
        with StepRecorder(trained) as recorder:
            take_step(trained, batch, terms)
        assert recorder.operations.total() == counter.get_total_flops() > 0

    def test_attention_of_cpus(self, trained):
        query, key = torch.randn(2, 4, 5, 8, requires_grad=True), torch.randn(2, 4, 7, 8, requires_grad=True)
        with StepRecorder(trained) as recorder:
            attended = nn.functional.scaled_dot_product_attention(query, key, key)
            forward = recorder.operations.total()
            attended.sum().backward()
        product = 2 * 2 * 4 * 5 * 7 * 8  # multiply and add, batch, heads, queries, keys, channels
        assert forward == 2 * product
        assert recorder.operations.total() == 2 * product + 5 * product  # the scores are computed again

    @pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
    @pytest.mark.parametrize("is_checkpointed", [False, True])
    def test_parts_are_told_apart_in_both_passes(self, trained, batch, is_checkpointed):
        if is_checkpointed:
            trained.activation_checkpointing_enable()
        counts = {}
        for terms in ((), ("loss_distillation",), MAP_TERMS[:1], MAP_TERMS):
            trained.zero_grad()
            with StepRecorder(trained) as recorder:
                take_step(trained, batch, terms)
            counts[terms] = recorder.operations
        plain, taught, own, pairs = counts.values()
        geometry = ("teacher", "validator", "cross-view")
        assert not any(plain[part] for part in geometry) and all(plain[part] for part in ("vision", "language"))
        assert all(other[part] == plain[part] for other in counts.values() for part in ("vision", "projector"))
        assert taught["teacher"] > 0 and not taught["validator"]
        assert own["validator"] == pairs["validator"] and not own["cross-view"]
        # 6 frames, and 6 pairs of each three frames with their next ones; a pair also has its pose.
        assert 1 <= pairs["cross-view"] / own["validator"] < 1.05
        assert set(pairs) <= set(STEP_PARTS)

    def test_heads_of_cameras_and_layers_are_geometry(self, trained, batch):
        """Two pairs of each three frames in both directions: 8 rows of 2 x 32 states; 2 videos of 32 for the scale."""
        for head in ("pose_head", "scale_head"):
            trained.add_camera_head(head)
        trained.read_layers(["vision.1", "language.2"], None)
        with StepRecorder(trained) as recorder:
            take_step(trained, batch, ["loss_pose", "loss_scale", "loss_distillation"])
        forward = 8 * 2 * (64 * 256 + 256 * 9) + 2 * 2 * (32 * 256 + 256)
        assert recorder.operations["cameras"] == 3 * forward
        pooling = recorder.operations["teacher"] - 3 * 2 * (6 * 9) * 2 * (32 * 64 + 64 * 6)
        assert 0 < pooling < 0.5 * recorder.operations["teacher"]

    def test_activation_checkpointing_adds_a_forward_pass(self, trained, batch):
        with StepRecorder(trained) as recorder:
            take_step(trained, batch)
        trained.activation_checkpointing_enable()
        with StepRecorder(trained) as again:
            take_step(trained, batch)
        # A forward pass is a third; the patches and the last product of a layer are not computed again.
        assert 1.1 < again.operations["vision"] / recorder.operations["vision"] < 4 / 3


class TestMemory:
    def test_what_is_freed_is_not_held(self, trained):
        with StepRecorder(trained) as recorder:
            first = torch.zeros(1000)
            assert recorder.peak == 4000
            view = first.view(10, 100)[2:]
            assert recorder.peak == 4000
            del first, view
            second = torch.ones(500)
            assert recorder.peak == 4000
            third = torch.cat([second, second, second])
        assert recorder.peak == 2000 + 6000 and recorder.peak_parts["other"] == 8000
        assert len(third) == 1500

    def test_weights_are_not_and_gradients_are_counted(self, trained):
        layer = trained.lm_head
        with StepRecorder(trained) as recorder:
            layer(torch.ones(1, layer.in_features)).sum().backward()
            layer(torch.ones(1, layer.in_features)).sum().backward()  # added in place, after a copy
        size = 4 * layer.weight.numel()
        assert recorder.peak_parts[GRADIENTS] == size
        assert 2 * size <= recorder.peak < 2.2 * size

    @pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
    def test_a_share_of_the_gradients(self, trained, batch, share):
        with StepRecorder(trained, gradient_share=share) as recorder:
            take_step(trained, batch)
            most = torch.zeros(10_000_000)
        gradients = sum(4 * value.numel() for value in trained.parameters() if value.grad is not None)
        assert recorder.peak_parts[GRADIENTS] == share * gradients
        assert recorder.peak >= 4 * len(most) + share * gradients

    def test_hooks_are_gone_afterwards(self, trained):
        with pytest.raises(RuntimeError, match="stop"), StepRecorder(trained):
            raise RuntimeError("stop")
        assert not any(module._forward_pre_hooks or module._forward_hooks for module in trained.modules())


def test_parameters_by_part(model):
    counts = count_parameters(model)
    assert list(counts) == list(PARTS)
    assert sum(counts.values()) == sum(value.numel() for value in model.parameters())
    model.model.language_model.requires_grad_(False)
    model.lm_head.requires_grad_(False)
    assert count_parameters(model, trainable=True)["language"] == 0
    assert count_parameters(build_model(validator=False, teacher_size=None))["geometry"] == 0
