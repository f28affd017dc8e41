import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from modeling_ide3d.auxiliary import TeacherProjector, TeacherProjectorConfig
from modeling_ide3d.auxiliary.teacher_projector import rename_original_key


def test_projects_to_the_teacher_width_and_keeps_leading_dimensions():
    projector = TeacherProjector(TeacherProjectorConfig(hidden_size=6, teacher_size=10))
    assert projector(torch.randn(2, 3, 4, 5, 6)).shape == (2, 3, 4, 5, 10)


def test_wrong_width_is_named():
    projector = TeacherProjector(TeacherProjectorConfig(hidden_size=6, teacher_size=10))
    with pytest.raises(ValueError, match=r"`hidden_states` must have shape \(\.\.\., 6\), got \(2, 7\)"):
        projector(torch.randn(2, 7))


def test_weights_begin_as_those_of_a_language_model():
    projector = TeacherProjector(TeacherProjectorConfig(hidden_size=60, teacher_size=100, initializer_range=0.05))
    for layer in (projector.linear_1, projector.linear_2):
        assert layer.weight.std().item() == pytest.approx(0.05, rel=0.1) and not layer.bias.any()


def test_config_rejects_wrong_types_and_sizes():
    with pytest.raises(StrictDataclassError, match="hidden_size"):
        TeacherProjectorConfig(hidden_size="wide")
    with pytest.raises((ValueError, StrictDataclassError), match="must be positive"):
        TeacherProjectorConfig(teacher_size=0)


def test_unknown_original_name_is_refused():
    assert rename_original_key("model.proj_3d.2.bias") == "linear_2.bias"
    with pytest.raises(ValueError, match="not a weight of the original proj_3d"):
        rename_original_key("model.proj_3d.1.weight")
