import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from modeling_ide3d.auxiliary import TeacherProjector, TeacherProjectorConfig, pool_teacher_features
from modeling_ide3d.auxiliary.teacher_projector import rename_original_key


def test_projects_to_the_teacher_width_and_keeps_leading_dimensions():
    projector = TeacherProjector(TeacherProjectorConfig(hidden_size=6, teacher_size=10))
    assert projector(torch.randn(2, 3, 4, 5, 6)).shape == (2, 3, 4, 5, 10)


def test_wrong_width_is_named():
    projector = TeacherProjector(TeacherProjectorConfig(hidden_size=6, teacher_size=10))
    with pytest.raises(ValueError, match=r"hidden_states must have shape \(\.\.\., 6\), got \(2, 7\)"):
        projector(torch.randn(2, 7))


def test_saved_projector_comes_back(tmp_path):
    projector = TeacherProjector(TeacherProjectorConfig(hidden_size=6, teacher_size=10))
    projector.save_pretrained(tmp_path)
    loaded = TeacherProjector.from_pretrained(tmp_path)
    hidden_states = torch.randn(3, 6)
    torch.testing.assert_close(loaded(hidden_states), projector(hidden_states), atol=0, rtol=0)


def test_config_rejects_wrong_types_and_sizes():
    with pytest.raises(StrictDataclassError, match="hidden_size"):
        TeacherProjectorConfig(hidden_size="wide")
    with pytest.raises((ValueError, StrictDataclassError), match="must be positive"):
        TeacherProjectorConfig(teacher_size=0)


def test_teacher_pooling_is_an_average_of_cells():
    teacher = torch.arange(24.0).reshape(1, 24, 1).repeat(2, 1, 3)  # a 4 x 6 grid
    pooled = pool_teacher_features(teacher, (4, 6), (2, 3))
    assert pooled.shape == (2, 2, 3, 3)
    assert pooled[0, 0, 0, 0] == (0 + 1 + 6 + 7) / 4
    assert pooled[1, 1, 2, 2] == (16 + 17 + 22 + 23) / 4


def test_teacher_pooling_detaches_and_returns_float32():
    teacher = torch.randn(2, 6, 4, dtype=torch.float16, requires_grad=True)
    pooled = pool_teacher_features(teacher, (2, 3), (1, 3))
    assert pooled.dtype == torch.float32
    assert not pooled.requires_grad


def test_teacher_pooling_keeps_leading_dimensions_and_checks_the_grid():
    assert pool_teacher_features(torch.randn(2, 3, 6, 4), (2, 3), (2, 2)).shape == (2, 3, 2, 2, 4)
    with pytest.raises(ValueError, match=r"teacher_features must have shape \(\.\.\., 8, C\)"):
        pool_teacher_features(torch.randn(2, 6, 4), (2, 4), (2, 2))


def test_unknown_original_name_is_refused():
    assert rename_original_key("model.proj_3d.2.bias") == "linear_2.bias"
    with pytest.raises(ValueError, match="not a weight of the original proj_3d"):
        rename_original_key("model.proj_3d.1.weight")
