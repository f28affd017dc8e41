"""Attention to what a word names: where words and cells are found, what the share measures, and that it is learned."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from equal_gradients import largest_difference, take_step
from training_samples import GRID, build_model, build_processor, chat, make_sample

from trainer import IDE3DTrainingArguments
from trainer.nano.mentions import MentionCollator, MentionTrainer, attention_shares

QUESTIONS = ("Find the red ball or the blue lamp.", "Is the lamp left of the lamp?", "Chairs, how many?")


@pytest.fixture(scope="module")
def collator():
    return MentionCollator(build_processor())


def cells(*places) -> np.ndarray:
    """(2, rows, cols), True at these places (frame, row, column)."""
    mask = np.zeros((2, *GRID), bool)
    for place in places:
        mask[place] = True
    return mask


def mentioning_sample(**fields) -> dict:
    mentions = [
        [("ball", cells((0, 1, 2))), ("lamp", cells((0, 0, 0), (1, 2, 2)))],
        [("lamp", cells((1, 0, 0))), ("lamp", cells())],
        [("chairs", cells((0, 2, 0)))],
    ]
    return make_sample(2, messages=[chat(q) for q in QUESTIONS], **{"mentions": mentions, **fields})


def test_positions_are_the_words_and_targets_the_cells(collator):
    plain = make_sample(1, seed=1, messages=[chat(q) for q in QUESTIONS])
    batch = collator([plain, mentioning_sample()])
    positions, targets, ids = batch["mention_positions"], batch["mention_targets"], batch["input_ids"]
    assert positions[0].tolist() == [-1] * 5 and not targets[0].any()
    words = [collator.processor.tokenizer.decode(ids[1, place]).strip().lower() for place in positions[1]]
    assert [word[-1:] for word in words] == ["l", "p", "p", "p", "s"]  # the last token of each
    assert (positions[1].diff() > 0).all()
    assert batch["segment_ids"][1, positions[1]].tolist() == [1, 1, 2, 2, 3]
    rows, cols = GRID
    places = (ids[1] == collator.processor.video_token_id).nonzero().flatten().unflatten(0, (2, rows, cols + 1))
    shown = [entry for entries in mentioning_sample()["mentions"] for _, entry in entries]
    for target, mask in zip(targets[1], shown, strict=True):
        found = target.nonzero().flatten().tolist()
        if mask.any():
            assert found == places[:, :, :cols][torch.from_numpy(mask)].tolist()
        else:
            assert found == [int((batch["segment_ids"][1] >= 0).nonzero()[0])]  # the first token, not the padding


def test_without_mentions_the_batch_is_the_usual_one(collator):
    assert "mention_positions" not in collator([mentioning_sample(mentions=[[], [], []])])
    assert "mention_positions" not in collator([make_sample(2)])


def test_a_sample_of_one_chat_beside_packed_ones(collator):
    """A long lens may show one thing to ask about."""
    packed = mentioning_sample()
    single = {**packed, "messages": [chat(QUESTIONS[0])], "mentions": packed["mentions"][:1]}
    batch = collator([packed, single])
    assert batch["segment_ids"][1].max() == 0
    positions, targets = batch["mention_positions"], batch["mention_targets"]
    assert (positions[1] >= 0).sum() == 2
    words = [collator.processor.tokenizer.decode(batch["input_ids"][1, place]) for place in positions[1, :2]]
    assert [word[-1:] for word in words] == ["l", "p"]
    assert torch.equal(targets[1, :2], targets[0, :2])  # both chats begin with the same video
    with pytest.raises(ValueError, match="Sample 1: 3 lists of mentions for 1 chats"):
        collator([packed, {**single, "mentions": packed["mentions"]}])


def test_what_is_not_there_raises(collator):
    with pytest.raises(ValueError, match="No 'sofa' behind token 0 of the chat"):
        collator([mentioning_sample(mentions=[[("sofa", cells())], [], []])])
    with pytest.raises(ValueError, match="1 lists of mentions for 3 chats"):
        collator([mentioning_sample(mentions=[[]])])


def test_shares_are_those_of_the_attention(collator):
    """The same numbers as Transformers' own attention weights, for packed questions and padded samples."""
    model = build_model().eval()
    model.config.text_config._attn_implementation = model.model.language_model.config._attn_implementation = "eager"
    plain = make_sample(1, seed=1, messages=[chat(q) for q in QUESTIONS])
    batch = collator([plain, mentioning_sample()])
    positions, targets = batch.pop("mention_positions"), batch.pop("mention_targets")
    attention, states = model.model.language_model.layers[1].self_attn, {}
    attention.register_forward_pre_hook(lambda _, args, named: states.update(named), with_kwargs=True)
    with torch.no_grad():
        weights = model(**batch, output_attentions=True).attentions[1][1]
        shares = attention_shares(
            attention,
            states["hidden_states"],
            states["position_embeddings"],
            positions,
            targets,
            batch["segment_ids"],
        )
    assert shares.shape == (5, 1)
    expected = [(weights[1, at] * target).sum() for at, target in zip(positions[1], targets[1], strict=True)]
    torch.testing.assert_close(shares[:, 0].exp(), torch.stack(expected))


@pytest.mark.parametrize("layer", [-1, 2])
def test_a_layer_that_is_not_there(collator, tmp_path, layer):
    args = IDE3DTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    with pytest.raises(ValueError, match=f"mention_layer must be from 0 to 1, got {layer}"):
        MentionTrainer(build_model(), args, mention_weight=1.0, mention_layer=layer, data_collator=collator)


def test_heads_that_share_keys(collator, tmp_path):
    args = IDE3DTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    model = build_model()
    model.config.text_config.num_key_value_heads = 1
    with pytest.raises(ValueError, match="got qwen2 with 2 heads and 1 keys"):
        MentionTrainer(model, args, mention_weight=1.0, data_collator=collator)


def test_training_turns_attention_to_what_is_named(collator, tmp_path):
    args = IDE3DTrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        logging_steps=5,
        max_steps=30,
        learning_rate=5e-3,
        warmup_steps=0,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
    )
    data = [
        mentioning_sample(geometry=False),
        make_sample(2, geometry=False, messages=[chat(q) for q in QUESTIONS]),
    ] * 2
    trainer = MentionTrainer(build_model(), args, mention_weight=1.0, train_dataset=data, data_collator=collator)
    trainer.train()
    shares = [entry["mention_share"] for entry in trainer.state.log_history if "mention_share" in entry]
    terms = [entry["loss_mention"] for entry in trainer.state.log_history if "loss_mention" in entry]
    assert len(shares) == 6 and shares[-1] > 0.5 > 0.2 > shares[0]
    assert terms[-1] < 1.0 < 2.0 < terms[0]


def one_mention(**fields) -> dict:
    mentions = [[], [("lamp", cells((0, 1, 1)))], []]
    return mentioning_sample(mentions=mentions, seed=4, geometry=False, **fields)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("per_device, accumulation", [(1, 3), (2, 2)], ids=["1x3", "2+1"])
def test_how_a_step_is_cut_into_batches_changes_no_gradient(collator, tmp_path, per_device, accumulation):
    """Five words, one and none: their mean is over the words of the step, not over its batches."""
    plain = make_sample(2, geometry=False, seed=1, messages=[chat(q) for q in QUESTIONS])
    samples = [mentioning_sample(geometry=False), one_mention(), plain]
    trainers = []

    def build(*args, **kwargs):
        trainers.append(MentionTrainer(*args, mention_weight=1.0, **kwargs))
        return trainers[-1]

    take = partial(take_step, make_trainer=build, collator=collator, logging_steps=1)
    whole = take(tmp_path / "whole", samples, 3)
    parts = take(tmp_path / "parts", samples, per_device, accumulation)
    assert largest_difference(whole, parts) < 1e-6
    logs = [trainer.state.log_history[0] for trainer in trainers]
    for name in ("loss", "loss_mention", "mention_share"):
        assert logs[0][name] == pytest.approx(logs[1][name], rel=1e-4), name
    alone = take(tmp_path / "alone", samples[1:2], 1)
    assert largest_difference(whole, alone) > 0.1


@pytest.mark.parametrize("only_term", [False, True])
def test_a_batch_that_is_not_finite_is_left_out(collator, tmp_path, monkeypatch, caplog, only_term):
    args = IDE3DTrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        max_steps=3,
        per_device_train_batch_size=1,
        max_nonfinite=1,
        train_sampling_strategy="sequential",
    )
    samples = [mentioning_sample(geometry=False, scene_id=name) for name in ("kitchen", "attic", "hall")]
    trainer = MentionTrainer(build_model(), args, mention_weight=1.0, train_dataset=samples, data_collator=collator)
    before, calls = copy.deepcopy(trainer.model.state_dict()), []

    def break_second(value):
        calls.append(value)
        return value * torch.nan if len(calls) == 2 else value

    if only_term:
        monkeypatch.setattr("trainer.nano.mentions.attention_shares", lambda *a: break_second(attention_shares(*a)))
    else:
        trainer.model.model.language_model.layers[0].register_forward_hook(lambda *hooked: break_second(hooked[2]))
    with caplog.at_level("WARNING"):
        trainer.train()
    broken = "loss_mention" if only_term else "loss_language, loss_mention"
    assert f"{broken} became NaN or Inf at step 1 for the samples ['attic']; the batch is left out" in caplog.text
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())
    assert any(not torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
