import pytest
import torch

from trainer.losses import FeatureDistillationLoss


def test_zero_for_the_same_direction_at_any_length():
    teacher = torch.randn(2, 3, 4, 8)
    assert FeatureDistillationLoss()(teacher, teacher).item() == 0.0
    assert FeatureDistillationLoss()(5 * teacher, 0.1 * teacher).item() == pytest.approx(0.0, abs=1e-6)


def test_hand_values():
    student, teacher = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 2.0], [0.0, -4.0]])
    assert FeatureDistillationLoss()(student, teacher).item() == pytest.approx((2 + 4) / 2)
    mask = torch.tensor([True, False])
    assert FeatureDistillationLoss()(student, teacher, mask).item() == pytest.approx(2.0)


def test_gradient_reaches_the_student_and_not_the_teacher():
    student, teacher = (torch.randn(2, 5, 8, requires_grad=True) for _ in range(2))
    mask = torch.tensor([[True] * 5, [False] * 5])
    FeatureDistillationLoss()(student, teacher, mask).backward()
    assert student.grad[0].abs().sum() > 0 and not student.grad[1].any()
    assert teacher.grad is None


def test_an_empty_mask_gives_a_zero_that_stays_in_the_graph():
    student = torch.randn(2, 5, 8, requires_grad=True)
    loss = FeatureDistillationLoss()(student, torch.randn(2, 5, 8), torch.zeros(2, 5, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0.0 and torch.equal(student.grad, torch.zeros_like(student))


def test_half_precision_is_computed_in_float32():
    student, teacher = torch.randn(6, 8).bfloat16(), torch.randn(6, 8).half()
    loss = FeatureDistillationLoss()(student, teacher)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, FeatureDistillationLoss()(student.float(), teacher.float()))


def test_a_broken_teacher_raises_where_it_counts_and_a_broken_student_shows():
    student, teacher = torch.randn(4, 8), torch.randn(4, 8)
    teacher[2, 3] = torch.nan
    with pytest.raises(ValueError, match="1 tokens hold NaN or Inf"):
        FeatureDistillationLoss()(student, teacher)
    mask = torch.tensor([True, True, False, True])
    assert FeatureDistillationLoss()(student, teacher, mask).isfinite()
    student[0, 0] = torch.nan
    assert FeatureDistillationLoss()(student, teacher, mask).isnan()


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="one shape"):
        FeatureDistillationLoss()(torch.ones(2, 8), torch.ones(2, 9))
    with pytest.raises(ValueError, match="`mask` must be bool"):
        FeatureDistillationLoss()(torch.ones(2, 8), torch.ones(2, 8), torch.ones(2))


def test_citation_names_the_paper():
    assert "2604.03296" in FeatureDistillationLoss().citation
