"""Several grounding queries over one video: each scores as it would alone, and mistakes are named."""

import numpy as np
import pytest
import torch
from training_samples import build_model, chat, make_grounding_sample, make_regions, make_sample

from trainer.supervision.criterion import GeometryCriterion

TARGETS = [[False, True, False, False], [False, False, False, True], [True, False, True, False]]


def packed_sample(views: int = 2, seed: int = 0, **fields) -> dict:
    """Two requests and a question between them, then a third request."""
    asked = [chat(f"Find number {k}.", "It is <ground>.") for k in range(3)]
    asked.insert(1, chat("Name it.", "A ball."))
    found = {"region_masks": make_regions(3, views), "region_targets": np.array(TARGETS)}
    return make_sample(views, seed=seed, **{"messages": asked, **found, **fields})


@pytest.fixture
def grounding_model():
    model = build_model()
    model.criterion = GeometryCriterion()
    return model.eval()


def test_each_query_scores_as_if_it_were_asked_alone(collator, grounding_model):
    sample = packed_sample()
    packed = grounding_model(**collator([sample]))
    assert packed.region_scores.shape == (3, 4)
    alone = []
    for place, targets in zip((0, 2, 3), TARGETS, strict=True):
        single = {**sample, "messages": sample["messages"][place], "region_targets": np.array(targets)}
        alone.append(grounding_model(**collator([single])))
    torch.testing.assert_close(packed.region_scores, torch.cat([outputs.region_scores for outputs in alone]))
    mean = torch.stack([outputs.loss_grounding for outputs in alone]).mean()
    torch.testing.assert_close(packed.loss_grounding, mean)


def test_samples_with_fewer_queries_and_regions_share_a_batch(collator, grounding_model):
    batch = collator([packed_sample(), make_grounding_sample(2, regions=2, target=None, seed=1), make_sample(1)])
    assert batch["region_targets"].shape == (3, 3, 4)
    assert batch["region_targets"][0].tolist() == TARGETS
    assert batch["region_targets"][1].tolist() == [[False, False, False, True], [False] * 4, [False] * 4]
    assert not batch["region_targets"][2].any()
    outputs = grounding_model(**batch)
    rows = [grounding_model(**collator([sample])).region_scores for sample in (packed_sample(),)]
    torch.testing.assert_close(outputs.region_scores[:3], rows[0])
    assert torch.isfinite(outputs.loss_grounding)


def test_questions_that_point_stand_beside_requests(collator, grounding_model):
    """A `<ground>` that refers to a region is no query, wherever it stands."""
    asked = [
        chat("Find it.", "It is <ground>."),
        chat("How far is <ground>?", "2 m"),
        chat("And it?", "It is <ground>."),
    ]
    sample = packed_sample(messages=asked, region_references=[-1, 2, -1], region_targets=np.array(TARGETS[:2]))
    outputs = grounding_model(**collator([sample]))
    single = {**sample, "messages": asked[2], "region_references": [], "region_targets": np.array(TARGETS[1])}
    torch.testing.assert_close(outputs.region_scores[1:], grounding_model(**collator([single])).region_scores)


def test_a_row_too_many_is_named(collator):
    with pytest.raises(ValueError, match="3 rows for 2 <ground> tokens that refer to no region"):
        collator([packed_sample(messages=[chat("Find it.", "It is <ground>.")] * 2)])


def test_packed_queries_need_references(collator, grounding_model):
    batch = collator([packed_sample()])
    del batch["region_references"]
    with pytest.raises(ValueError, match="packed queries need region_references"):
        grounding_model(**batch)
