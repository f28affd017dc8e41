"""Chats packed behind one visual prefix give what each of them gives alone."""

import copy

import pytest
import torch
from training_samples import chat, make_grounding_sample, make_regions, make_sample

from modeling_ide3d.auxiliary.packed_attention import build_packed_attention

CHATS = [
    chat("How far is <ground>?", "It is near."),
    chat("Name it.", "The ball"),
    chat("How far is <ground> and where is <ground>?", "2 m"),
]
REGIONS = {"region_masks": make_regions(4), "region_references": [2, 0, 3]}
OWN_REFERENCES = [[2], [], [0, 3]]


@pytest.fixture(params=["sdpa", "eager"])
def attentive_model(request, model):
    model.set_attn_implementation(request.param)
    return model.eval()


def packed_sample(**fields):
    return make_sample(messages=CHATS, **REGIONS, **fields)


def single_samples():
    return [
        make_sample(messages=messages, region_masks=REGIONS["region_masks"], region_references=references)
        for messages, references in zip(CHATS, OWN_REFERENCES, strict=True)
    ]


def losses(model, batch):
    """Summed language loss of a batch and its gradients by name."""
    model = copy.deepcopy(model)
    count = int((batch["labels"][:, 1:] != -100).sum())
    loss = model(**batch, num_items_in_batch=1).loss
    loss.backward()
    return loss.detach(), count, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def test_segments_and_restarting_positions(collator):
    batch = collator([packed_sample(), make_sample(1)])
    segments = batch["segment_ids"]
    video = batch["input_ids"] == collator.processor.video_token_id
    assert (segments[video] == 0).all()
    assert segments[0].unique().tolist() == [0, 1, 2, 3]
    assert segments[1].unique().tolist() == [-1, 0]
    assert torch.equal(segments == -1, batch["attention_mask"] == 0)
    _, positions = build_packed_attention(segments, "sdpa", torch.float32)
    prefix = int((segments[0] == 0).sum())
    for segment in (1, 2, 3):
        own = positions[0][segments[0] == segment]
        assert own.tolist() == list(range(prefix, prefix + len(own)))


def test_logits_are_those_of_each_chat_alone(collator, attentive_model):
    packed = collator([packed_sample()])
    logits = attentive_model(**packed).logits[0]
    segments = packed["segment_ids"][0]
    for index, sample in enumerate(single_samples(), start=1):
        single = collator([sample])
        own = (segments == 0) | (segments == index)
        assert torch.equal(packed["input_ids"][0][own], single["input_ids"][0])
        torch.testing.assert_close(logits[own], attentive_model(**single).logits[0], atol=2e-5, rtol=1e-4)


def test_losses_and_gradients_add_up(collator, attentive_model):
    packed_loss, packed_count, packed_gradients = losses(attentive_model, collator([packed_sample()]))
    singles = [losses(attentive_model, collator([sample])) for sample in single_samples()]
    assert packed_count == sum(count for _, count, _ in singles)
    torch.testing.assert_close(packed_loss, sum(loss for loss, _, _ in singles), rtol=1e-5, atol=1e-5)
    for name, gradient in packed_gradients.items():
        expected = sum(gradients[name] for _, _, gradients in singles)
        torch.testing.assert_close(
            gradient, expected, rtol=1e-3, atol=2e-5 * float(expected.abs().max() + 1), msg=name
        )


def test_a_reference_of_a_later_chat_takes_its_own_region(collator, attentive_model):
    """Only the third chat points at the regions 0 and 3; only the first at region 2."""
    before = collator([packed_sample()])
    reference = attentive_model(**before).logits[0]
    segments = before["segment_ids"][0]
    for region, chats in ((2, {1}), (0, {3}), (3, {3}), (1, set())):
        masks = REGIONS["region_masks"].copy()
        masks[region] = ~masks[region]
        logits = attentive_model(
            **collator([make_sample(messages=CHATS, **{**REGIONS, "region_masks": masks})])
        ).logits
        changed = (logits[0] - reference).abs().amax(-1) > 1e-5
        assert set(segments[changed].tolist()) == chats


def test_a_packed_sample_does_not_change_its_neighbours(collator, attentive_model):
    others = [make_sample(1, seed=4), make_grounding_sample(2), {"messages": chat(kind=None)}]
    alone = [attentive_model(**collator([sample])).logits[0] for sample in others]
    batch = collator([others[0], packed_sample(), *others[1:]])
    logits = attentive_model(**batch).logits
    assert torch.isfinite(logits).all()
    for row, expected in zip((0, 2, 3), alone, strict=True):
        torch.testing.assert_close(logits[row, : len(expected)], expected, atol=2e-5, rtol=1e-4)


def test_one_packed_chat_is_an_ordinary_sample(collator):
    assert "segment_ids" not in collator([make_sample(messages=[chat()])])


@pytest.mark.parametrize(
    "messages, message",
    [
        ([chat(), [{"role": "system", "content": "Be brief."}, *chat()]], "chat 1 differs from chat 0"),
        ([chat(), chat(kind=None)], "chat 1 differs from chat 0"),
        ([chat(), chat(kind="image")], "chat 1 differs from chat 0"),
    ],
)
def test_chats_that_begin_differently_are_not_packed(collator, messages, message):
    with pytest.raises(ValueError, match=f"Sample 0: .*{message}"):
        collator([make_sample(messages=messages)])


def test_chats_without_a_video_are_not_packed(collator):
    with pytest.raises(ValueError, match="share a video or image"):
        collator([{"messages": [chat(kind=None), chat(kind=None)]}])


def test_other_attentions_are_refused(collator, model):
    model.config.text_config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match='"sdpa" or "eager", got \'flash_attention_2\''):
        model(**collator([packed_sample()]))
