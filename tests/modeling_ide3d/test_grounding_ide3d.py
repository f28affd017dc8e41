"""Regions: their pooled features, the prompt tokens that stand for them, and the head that scores them."""

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from modeling_ide3d.grounding_ide3d import (
    GroundingHead,
    complete_region_valid,
    fill_empty_regions,
    gather_frame_features,
    locate_references,
    mean_visual_token,
    pool_regions,
    select_region_references,
)


@pytest.fixture
def head():
    torch.manual_seed(0)
    module = GroundingHead(16)
    torch.nn.init.normal_(module.no_object)
    torch.nn.init.normal_(module.empty_region)
    return module


def ask(tiny_inputs, *samples, **kwargs):
    """Samples whose text ends with the answer `<ground>`."""
    return tiny_inputs(*[[*sample, "text", "ground"] for sample in samples], **kwargs)


# Pure functions


def test_pooled_feature_is_the_mean_of_the_marked_tokens():
    features = torch.arange(2 * 3 * 2 * 2 * 4, dtype=torch.float32).reshape(2, 3, 2, 2, 4)
    masks = torch.zeros(2, 2, 3, 2, 2, dtype=torch.bool)
    masks[0, 0, 1, 0, 1] = masks[0, 0, 2, 1, 0] = True
    masks[1, 0, 2, 1, 1] = True
    masks[1, 1] = True
    pooled, empty = pool_regions(features, masks)
    torch.testing.assert_close(pooled[0, 0], (features[0, 1, 0, 1] + features[0, 2, 1, 0]) / 2)
    torch.testing.assert_close(pooled[1, 0], features[1, 2, 1, 1])
    torch.testing.assert_close(pooled[1, 1], features[1].flatten(0, 2).mean(0))
    assert empty.tolist() == [[False, True], [False, False]]
    assert (pooled[0, 1] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_pooling_of_a_large_region_keeps_the_precision_of_its_type(dtype):
    """6,272 tokens a video: their sum exceeds half precision, and so does the number of tokens."""
    generator = torch.Generator().manual_seed(0)
    features = (20 + torch.rand(1, 32, 14, 14, 3, generator=generator)).to(dtype)
    masks = torch.rand(1, 2, 32, 14, 14, generator=generator) < 0.7
    pooled, _ = pool_regions(features, masks)
    assert pooled.dtype == dtype
    for region in range(2):
        expected = features[0].double()[masks[0, region]].mean(0).to(dtype)
        torch.testing.assert_close(pooled[0, region], expected, atol=0, rtol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, _ = pool_regions(features, masks)
    torch.testing.assert_close(inside, pooled, atol=0, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_scores_are_close_and_finite(tiny_model, tiny_inputs, dtype):
    """Videos of different length, regions of different number, one of them empty, one sample without any."""
    inputs = ask(tiny_inputs, [1], [3, "text"], ["text", 2], regions=[2, 3, 0])
    inputs["region_masks"][0, 0] = False
    expected = tiny_model.ground(**inputs)
    low = {key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs.items()}
    scores = tiny_model.to(dtype).ground(**low)
    assert scores.dtype == torch.float32
    assert torch.equal(scores.isneginf(), expected.isneginf())
    real = ~expected.isneginf()
    torch.testing.assert_close(scores[real], expected[real], atol=0.1, rtol=0)


@torch.no_grad()
def test_fallback_to_the_mean_of_a_long_video_does_not_overflow(make_tiny_model, tiny_config):
    config = tiny_config(spatial_pool_stride=1)
    model = make_tiny_model(config).half()
    rows, cols = config.token_grid
    tokens = torch.full((24 * rows * (cols + 1), config.text_config.hidden_size), 200.0, dtype=torch.float16)
    masks = torch.zeros(1, 1, 24, rows, cols, dtype=torch.bool)
    encoded = {"video": BaseModelOutputWithPooling(pooler_output=[tokens])}
    ids = torch.full((1, len(tokens)), config.video_token_id)
    _, empty, mean = model.model.get_region_features(ids, encoded, masks)
    assert empty.all()
    torch.testing.assert_close(mean, torch.full_like(mean, 200.0))


def test_an_empty_region_takes_the_vector_of_its_sample_or_the_learned_one():
    features = torch.ones(2, 3, 4)
    empty = torch.tensor([[False, True, False], [True, False, False]])
    means = torch.tensor([2.0, 3.0])[:, None].expand(2, 4)
    filled = fill_empty_regions(features, empty, means)
    assert filled[..., 0].tolist() == [[1, 2, 1], [3, 1, 1]]
    learned = fill_empty_regions(features, empty, torch.full((4,), 5.0, dtype=torch.float64))
    assert learned[..., 0].tolist() == [[1, 5, 1], [5, 1, 1]] and learned.dtype == features.dtype


def test_the_mean_of_a_sample_counts_its_own_frames_only():
    features = torch.zeros(2, 3, 2, 2, 1)
    features[0], features[1, 0] = 4.0, 6.0
    assert mean_visual_token(features, torch.tensor([3, 1])).tolist() == [[4.0], [6.0]]
    assert mean_visual_token(torch.zeros(1, 0, 2, 2, 1), torch.tensor([0])).tolist() == [[0.0]]


def test_frames_are_gathered_without_newlines_and_in_order_of_the_samples():
    rows, cols, width = 2, 2, 3
    tokens = torch.arange(4 * rows * (cols + 1) * width, dtype=torch.float32).reshape(4, rows, cols + 1, width)
    videos = [tokens[:1].reshape(-1, width), tokens[1:3].reshape(-1, width), tokens[3:].reshape(-1, width)]
    counts = torch.tensor([3, 0, 1]) * rows * (cols + 1)  # the first sample has two videos, the second has none
    features, frames = gather_frame_features({"video": videos}, {"video": counts}, (rows, cols))
    assert frames.tolist() == [3, 0, 1]
    torch.testing.assert_close(features[0], tokens[:3, :, :cols])
    assert (features[1] == 0).all()
    torch.testing.assert_close(features[2, 0], tokens[3, :, :cols])
    assert (features[2, 1:] == 0).all()


def test_images_follow_the_videos_of_their_sample():
    video, image = torch.full((6, 3), 1.0), torch.full((6, 3), 2.0)
    counts = {"video": torch.tensor([6]), "image": torch.tensor([6])}
    features, frames = gather_frame_features({"video": [video], "image": [image]}, counts, (2, 2))
    assert frames.tolist() == [2]
    assert features[0, 0].unique().tolist() == [1.0]
    assert features[0, 1].unique().tolist() == [2.0]


def test_default_references_are_in_order_and_spare_the_query():
    is_ground = torch.tensor([[1, 0, 1, 1], [0, 0, 1, 0], [0, 0, 0, 0]]).bool()
    valid = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 0, 0]]).bool()
    assert select_region_references(is_ground, valid).tolist() == [[0, 1, 2], [0, -1, -1], [-1, -1, -1]]
    has_query = torch.tensor([True, True, False])
    assert select_region_references(is_ground, valid, has_query).tolist() == [[0, 1, -1], [-1, -1, -1], [-1, -1, -1]]


def test_default_references_skip_padding_wherever_it_is():
    is_ground = torch.tensor([[True, True], [True, False]])
    valid = torch.tensor([[False, True, True], [True, False, True]])
    assert select_region_references(is_ground, valid).tolist() == [[1, 2, -1], [0, -1, -1]]


def test_references_are_located_at_their_tokens():
    is_ground = torch.tensor([[0, 1, 0, 1, 1]]).bool()
    assert locate_references(is_ground, torch.tensor([[2, -1]])).tolist() == [[-1, 2, -1, -1, -1]]
    assert locate_references(is_ground, torch.tensor([[2, 0, 1]])).tolist() == [[-1, 2, -1, 0, 1]]
    assert locate_references(is_ground, torch.zeros(1, 0, dtype=torch.long)).tolist() == [[-1] * 5]


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"region_references must have shape \(1, num_references\)"):
        locate_references(torch.ones(1, 3, dtype=torch.bool), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"region_masks must have shape .* got \(1, 3, 3\)"):
        complete_region_valid(torch.ones(1, 3, 3, dtype=torch.bool), None)
    with pytest.raises(ValueError, match=r"region_valid must have shape \(1, 2\)"):
        complete_region_valid(torch.ones(1, 2, 1, 3, 3, dtype=torch.bool), torch.ones(1, 3))


# The head


def test_scores_are_cosines_with_one_column_more_than_regions(head):
    scores = head(torch.randn(2, 16), torch.randn(2, 3, 16))
    assert scores.shape == (2, 4)
    assert scores.abs().max() <= 1 + 1e-6
    assert scores.dtype == torch.float32


def test_padded_regions_score_minus_infinity_and_change_nothing_else(head):
    query, features = torch.randn(1, 16), torch.randn(1, 3, 16)
    scores = head(query, features, region_valid=torch.tensor([[True, True, False]]))
    assert scores[0, 2] == -torch.inf
    torch.testing.assert_close(scores[:, [0, 1, 3]], head(query, features[:, :2]))


def test_empty_region_takes_the_learned_feature(head):
    query, features = torch.randn(1, 16), torch.randn(1, 2, 16)
    scores = head(query, features, region_empty=torch.tensor([[False, True]]))
    filled = torch.stack([features[0, 0], head.empty_region]).unsqueeze(0)
    torch.testing.assert_close(scores, head(query, filled))


@pytest.mark.parametrize("name", ["no_object", "empty_region", "query_proj.0.weight", "key_proj.3.bias"])
def test_gradient_reaches_every_part(head, name):
    scores = head(torch.randn(1, 16), torch.randn(1, 2, 16), region_empty=torch.tensor([[True, False]]))
    scores.pow(2).sum().backward()
    assert head.get_parameter(name).grad.abs().sum() > 0


# The whole model


@torch.no_grad()
def test_permuting_the_regions_permutes_the_scores(tiny_model, tiny_inputs):
    inputs = ask(tiny_inputs, [2], [3], regions=4)
    order = torch.tensor([2, 0, 3, 1])
    scores = tiny_model.ground(**inputs)
    inputs["region_masks"] = inputs["region_masks"][:, order]
    torch.testing.assert_close(tiny_model.ground(**inputs), scores[:, [*order.tolist(), 4]])
    assert scores[:, :4].std() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_a_batch_scores_as_its_samples_do(tiny_model, tiny_inputs, padding_side):
    samples = [[2], [3, "text"], ["image"], [1, "text", 2]]
    counts = [3, 1, 0, 2]
    batch = ask(tiny_inputs, *samples, regions=counts, padding_side=padding_side)
    scores = tiny_model.ground(**batch)
    assert scores.isneginf().sum(-1).tolist() == [0, 2, 3, 1]
    videos, images = (
        iter(zip(batch["pixel_values_videos"], batch["video_frame_mask"], strict=True)),
        iter(batch["pixel_values"]),
    )
    for index, (sample, regions) in enumerate(zip(samples, counts, strict=True)):
        numbers = [part for part in sample if isinstance(part, int)]
        frames = sum(numbers) + sample.count("image")
        single = {
            "input_ids": batch["input_ids"][index : index + 1, batch["attention_mask"][index].bool()],
            "region_masks": batch["region_masks"][index : index + 1, :regions, :frames],
        }
        if numbers:
            pixels, masks = zip(*[next(videos) for _ in numbers], strict=True)
            single |= {"pixel_values_videos": torch.stack(pixels), "video_frame_mask": torch.stack(masks)}
        else:
            single["pixel_values"] = next(images).unsqueeze(0)
        expected = tiny_model.ground(**single)
        torch.testing.assert_close(scores[index, [*range(regions), -1]], expected[0], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_no_candidates_leave_the_no_object_score(tiny_model, tiny_inputs):
    inputs = ask(tiny_inputs, [2], regions=2)
    scores = tiny_model.ground(**inputs)
    inputs["region_masks"], inputs["region_valid"] = inputs["region_masks"][:, :0], None
    alone = tiny_model.ground(**inputs)
    assert alone.shape == (1, 1)
    torch.testing.assert_close(alone[0, 0], scores[0, -1])


@torch.no_grad()
def test_all_empty_regions_score_alike(tiny_model, tiny_inputs):
    inputs = ask(tiny_inputs, [2], regions=3)
    inputs["region_masks"][:, 1:] = False
    scores = tiny_model.ground(**inputs)
    assert scores.isfinite().all()
    assert scores[0, 1] == scores[0, 2] != scores[0, 0]


@torch.no_grad()
def test_scores_depend_on_the_question_and_on_the_video(tiny_model, tiny_inputs):
    inputs = ask(tiny_inputs, [2], regions=3)
    scores = tiny_model.ground(**inputs)
    other_words = inputs["input_ids"].clone()
    other_words[0, -3] = (other_words[0, -3] + 1) % 90
    assert not torch.allclose(tiny_model.ground(**{**inputs, "input_ids": other_words}), scores, atol=1e-5)
    other_video = inputs["pixel_values_videos"].flip(-1)
    assert not torch.allclose(tiny_model.ground(**{**inputs, "pixel_values_videos": other_video}), scores, atol=1e-5)


@torch.no_grad()
def test_precomputed_features_give_the_same_scores(tiny_model, tiny_inputs):
    inputs = ask(tiny_inputs, [2], [1], regions=2)
    scores = tiny_model.ground(**inputs)
    encoded = tiny_model.get_video_features(inputs.pop("pixel_values_videos"), inputs.pop("video_frame_mask"))
    assert torch.equal(tiny_model.ground(**inputs, mm_encoder_outputs={"video": encoded}), scores)


@torch.no_grad()
def test_question_may_refer_to_regions_itself(tiny_model, tiny_inputs):
    # "what is left of <ground>? <ground>": the first refers to region 0, the last is the query
    inputs = tiny_inputs([2, "text", "ground", "text", "ground"], regions=3)
    default = tiny_model.ground(**inputs)
    assert torch.equal(tiny_model.ground(**inputs, region_references=torch.tensor([[0]])), default)
    other = tiny_model.ground(**inputs, region_references=torch.tensor([[1]]))
    assert not torch.allclose(other, default, atol=1e-5)


def test_padding_of_integers_is_read_as_booleans(tiny_model, tiny_inputs):
    inputs = ask(tiny_inputs, [2], [2], regions=[2, 1])
    scores = tiny_model.ground(**inputs)
    inputs["region_valid"], inputs["region_masks"] = inputs["region_valid"].long(), inputs["region_masks"].long()
    assert torch.equal(tiny_model.ground(**inputs), scores)


def test_inputs_are_left_alone(tiny_model, tiny_inputs):
    inputs = ask(tiny_inputs, [2], regions=2)
    before = {key: value.clone() for key, value in inputs.items()}
    tiny_model.ground(**inputs)
    assert all(torch.equal(inputs[key], before[key]) for key in before)


def test_the_scores_of_a_question_keep_no_graph(tiny_model, tiny_inputs):
    kept = []
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(lambda saved: kept.append(saved), lambda x: x):
        scores = tiny_model.ground(**ask(tiny_inputs, [2], regions=2))
    assert not kept and scores.numpy().shape == (1, 3)


def test_gradient_of_the_scores_reaches_head_language_model_and_vision(tiny_model, tiny_inputs):
    inputs = ask(tiny_inputs, [2], regions=3)
    inputs["region_masks"][:, 2] = False
    ids, masks = inputs["input_ids"], inputs["region_masks"]
    encoded = {"video": tiny_model.model.get_video_features(inputs.pop("pixel_values_videos"), return_dict=True)}
    references = torch.full((1, 1), -1)  # The one <ground> is the question.
    outputs = tiny_model.model(**inputs, region_references=references, mm_encoder_outputs=encoded, return_dict=True)
    query = tiny_model.locate_query(ids, None)
    scores = tiny_model.score_regions(outputs.last_hidden_state, query, ids, encoded, masks)
    scores.pow(2).sum().backward()
    without_gradient = {name for name, weight in tiny_model.named_parameters() if weight.grad is None}
    assert without_gradient == {
        "lm_head.weight",
        "model.vision_tower.post_layernorm.weight",
        "model.vision_tower.post_layernorm.bias",
    }
    for name in ("grounding_head.no_object", "grounding_head.empty_region", "model.image_newline"):
        assert tiny_model.get_parameter(name).grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"region_masks": torch.ones(1, 2, 2, 4, 3, dtype=torch.bool)},
            r"\(1, num_regions, 2, 3, 3\).*got \(1, 2, 2, 4",
        ),
        ({"region_masks": torch.ones(1, 2, 3, 3, 3, dtype=torch.bool)}, r"\(1, num_regions, 2, 3, 3\)"),
        ({"region_masks": torch.ones(2, 2, 3, 3, dtype=torch.bool)}, "region_masks must have shape"),
        ({"region_valid": torch.ones(1, 5, dtype=torch.bool)}, r"region_valid must have shape \(1, 2\)"),
        ({"region_references": torch.tensor([0])}, "region_references must have shape"),
        ({"region_references": torch.tensor([[0]])}, r"Samples \[0\] have no <ground> to answer with"),
        (
            {"pixel_values_videos": None, "video_frame_mask": None},
            "region_masks need a video or an image|videos give 0",
        ),
    ],
)
def test_wrong_shapes_raise(tiny_model, tiny_inputs, change, message):
    inputs = {**ask(tiny_inputs, [2], regions=2), **change}
    with pytest.raises(ValueError, match=message):
        tiny_model.ground(**inputs)


def test_text_without_a_query_raises_and_names_the_sample(tiny_model, tiny_inputs):
    inputs = tiny_inputs([2, "text", "ground"], [2, "text"], regions=1)
    with pytest.raises(ValueError, match=r"Samples \[1\] have no <ground> to answer"):
        tiny_model.ground(**inputs)


def test_cells_of_frames_that_do_not_exist_raise(tiny_model, tiny_inputs):
    inputs = ask(tiny_inputs, [3], [1], regions=1)
    inputs["region_masks"][1, 0, 2] = True
    with pytest.raises(ValueError, match="frames that their sample does not have"):
        tiny_model.ground(**inputs)


# What makes scores meaningless


def test_scores_that_are_not_finite_are_refused_by_sample(tiny_model, tiny_inputs):
    inputs = tiny_inputs([1, "text", "ground"], [1, "text", "ground"], regions=2)
    inputs["pixel_values_videos"][1, 0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"scores of regions are NaN or Inf for \[1\]"):
        tiny_model.ground(**inputs)
    tiny_model.grounding_head.key_proj[0].weight.data.fill_(float("inf"))
    with pytest.raises(ValueError, match=r"NaN or Inf for \[0, 1\]"):
        tiny_model.ground(**inputs)


def test_padded_regions_are_no_scores(tiny_model, tiny_inputs):
    inputs = tiny_inputs([1, "text", "ground"], regions=2)
    scores = tiny_model.ground(**{**inputs, "region_valid": torch.tensor([[True, False]])})
    assert scores[0, 1] == -torch.inf


def test_soft_candidates_and_doubled_pixels_are_refused(tiny_model, tiny_inputs):
    inputs = tiny_inputs([1, "text", "ground"], regions=1)
    with pytest.raises(ValueError, match="region_masks must be bool"):
        tiny_model.ground(**{**inputs, "region_masks": inputs["region_masks"].float() * 0.3})
    encoded = {"video": tiny_model.get_video_features(inputs["pixel_values_videos"])}
    with pytest.raises(ValueError, match="either pixels or mm_encoder_outputs"):
        tiny_model.ground(**inputs, mm_encoder_outputs=encoded)
