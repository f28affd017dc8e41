"""Chats packed behind one visual prefix give what each of them gives alone."""

import copy

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention
from training_samples import chat, make_grounding_sample, make_regions, make_sample

from modeling_ide3d.auxiliary import IDE3DForConditionalGenerationWithGeometry
from modeling_ide3d.auxiliary.packed_attention import PackedChats, build_packed_attention
from trainer import IDE3DTrainer, IDE3DTrainingArguments

CHATS = [
    chat("How far is <ground>?", "It is near."),
    chat("Name it.", "The ball"),
    chat("How far is <ground> and where is <ground>?", "2 m"),
]
REGIONS = {"region_masks": make_regions(4), "region_references": [2, 0, 3]}
OWN_REFERENCES = [[2], [], [0, 3]]


@pytest.fixture(params=["sdpa", "eager", "shared_prefix"])
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


def step(model, batch, attention, **changes):
    """Loss, outputs and gradients of a training step with this attention."""
    model = copy.deepcopy(model).train()
    model.set_attn_implementation({"text_config": attention})
    outputs = model(**batch, **changes)
    outputs.loss.backward()
    return outputs, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("key_heads", [2, 1])
def test_attention_in_parts_has_the_gradients_of_the_mask(collator, model, key_heads, checkpointing):
    """Another order of sums is the only difference; norms and losses round to single precision in any model."""
    config = copy.deepcopy(model.config)
    config.text_config.num_key_value_heads = key_heads
    model = IDE3DForConditionalGenerationWithGeometry(config).double()
    if checkpointing:
        model.activation_checkpointing_enable()
    batch = collator([packed_sample(), make_sample(1), make_sample(messages=[*CHATS, *CHATS[1:2] * 3], **REGIONS)])
    batch = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
    (expected, reference), (outputs, gradients) = (step(model, batch, name) for name in ("sdpa", "shared_prefix"))
    torch.testing.assert_close(outputs.loss, expected.loss, rtol=1e-6, atol=0)
    assert gradients.keys() == reference.keys()
    for name, gradient in gradients.items():
        assert (gradient - reference[name]).norm() <= 1e-6 * (reference[name].norm() + 1e-3), name


def test_a_training_step_computes_final_states_where_something_reads_them(collator, model):
    batch = collator([packed_sample(), make_sample(1)])
    outputs, _ = step(model, batch, "shared_prefix")
    expected, _ = step(model, batch, "sdpa")
    read = outputs.last_hidden_state.abs().sum(-1) > 0
    labelled = torch.nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=-100) != -100
    ground = batch["input_ids"] == collator.processor.ground_token_id
    assert torch.equal(read, labelled | ground)
    torch.testing.assert_close(outputs.last_hidden_state[read], expected.last_hidden_state[read], atol=1e-5, rtol=1e-4)
    assert outputs.logits.shape[:2] == (1, int(labelled.sum()))
    outputs, _ = step(model, batch, "shared_prefix", output_hidden_states=True)
    there = batch["segment_ids"] >= 0
    states = step(model, batch, "sdpa", output_hidden_states=True)[0].hidden_states
    for own, other in zip(outputs.hidden_states, states, strict=True):
        torch.testing.assert_close(own[there], other[there], atol=1e-5, rtol=1e-4)


def test_the_block_mask_of_flex_attention_is_the_packed_mask(collator):
    batch = collator([packed_sample(), make_sample(1)])
    chats = PackedChats(batch["segment_ids"])
    mask, positions = build_packed_attention(batch["segment_ids"], "sdpa", torch.float32)
    query, key, value = torch.randn(3, 1, 2, len(chats.places), 16, generator=torch.Generator().manual_seed(0))
    in_parts = chats.attend(None, query, key, value, 0.25)
    by_flex = flex_attention(query, key, value, block_mask=chats.block_mask, scale=0.25)
    torch.testing.assert_close(in_parts, by_flex, atol=1e-6, rtol=1e-5)
    padded = [chats.pad(states.transpose(1, 2)).transpose(1, 2) for states in (query, key, value)]
    dense = torch.nn.functional.scaled_dot_product_attention(*padded, attn_mask=mask, scale=0.25)
    torch.testing.assert_close(in_parts, chats.pick(dense.transpose(1, 2)).transpose(1, 2), atol=1e-6, rtol=1e-5)
    assert torch.equal(chats.position_ids, chats.pick(positions))


def test_a_training_takes_attention_in_parts(collator, model, tmp_path):
    args = IDE3DTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    trainer = IDE3DTrainer(model, args, train_dataset=[packed_sample()], data_collator=collator)
    assert trainer.model.config.text_config._attn_implementation == "shared_prefix"
    assert "shared_prefix" not in trainer.model.config.to_json_string(use_diff=False)
    model.set_attn_implementation({"text_config": "eager"})
    IDE3DTrainer(model, args, train_dataset=[packed_sample()], data_collator=collator)
    assert model.config.text_config._attn_implementation == "eager"


@pytest.mark.parametrize("kept", [False, True])
def test_a_training_keeps_no_cache_unless_asked(collator, model, tmp_path, kept):
    args = IDE3DTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", use_cache=kept)
    trainer = IDE3DTrainer(model, args, train_dataset=[packed_sample()], data_collator=collator)
    caches = []
    trainer.model.model.language_model.register_forward_hook(lambda *call: caches.append(call[-1].cache))
    trainer.training_step(trainer.model, collator([packed_sample()]))
    assert [cache is not None for cache in caches] == [kept]


def test_segments_in_pieces_are_refused(model, collator):
    batch = collator([packed_sample()])
    batch["segment_ids"][0, -1] = 1
    model.set_attn_implementation({"text_config": "shared_prefix"})
    with pytest.raises(ValueError, match="segment_ids must be one piece for each segment of a sample"):
        model(**batch)


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
    with pytest.raises(ValueError, match='"shared_prefix", "sdpa" or "eager", got \'flash_attention_2\''):
        model(**collator([packed_sample()]))


def test_a_prefix_that_no_chat_sees_is_a_segment_of_its_own(model, collator):
    """So the lesson that reads regions hides the video."""
    batch = collator([packed_sample()])
    segments = batch["segment_ids"]
    batch["segment_ids"] = segments.masked_fill(segments == 0, int(segments.max()) + 1)
    losses = []
    for attention in ("sdpa", "shared_prefix"):
        model.set_attn_implementation({"text_config": attention})
        losses.append(model(**batch).loss)
    torch.testing.assert_close(*losses)
