"""Data sets in shares, mixed or one at a time."""

import shutil
from collections import Counter

import pytest
from training_samples import build_model, make_grounding_sample, make_sample

from trainer.loop.mixture import MixtureDataset, MixtureSampler

SETS = {"questions": [f"q{i}" for i in range(10)], "captions": ["c0", "c1"], "grounding": [f"g{i}" for i in range(6)]}
EQUAL = dict.fromkeys(SETS, 1)


def epoch(sampler, number=0):
    sampler.set_epoch(number)
    return [sampler.mixture[index] for index in sampler]


def test_without_weights_every_sample_comes_once():
    sampler = MixtureSampler(MixtureDataset(SETS))
    assert sorted(epoch(sampler)) == sorted(sum(SETS.values(), []))
    assert len(sampler) == len(sampler.mixture) == 18
    assert epoch(sampler) == epoch(sampler) != epoch(sampler, 1)


def test_shares_are_exact_and_nothing_is_left_out_over_the_epochs():
    sampler = MixtureSampler(MixtureDataset(SETS, EQUAL))
    drawn = [epoch(sampler, number) for number in range(5)]
    assert all(Counter(name[0] for name in names) == {"q": 6, "c": 6, "g": 6} for names in drawn)
    assert set(Counter(name for names in drawn for name in names if name[0] == "q").values()) == {3}


def test_rounded_shares_add_up():
    mixture = MixtureDataset(SETS, {"questions": 1, "captions": 1, "grounding": 1.7})
    assert sum(mixture.draws()) == 18


def test_a_share_below_a_sample_an_epoch_is_drawn_once_in_several():
    """1000 and 10 samples, 1 to 1e-4: 0.1 samples an epoch."""
    mixture = MixtureDataset({"large": range(1000), "small": range(1000, 1010)}, {"large": 1, "small": 1e-4})
    sampler = MixtureSampler(mixture, seed=3)
    epochs = [epoch(sampler, number) for number in range(100)]
    rare = [[index for index in drawn if index >= 1000] for drawn in epochs]
    assert all(len(drawn) == len(sampler) == 1010 for drawn in epochs)
    assert [len(drawn) for drawn in rare[:20]].count(1) == 2 and max(map(len, rare)) == 1
    assert sorted(sum(rare, [])) == list(range(1000, 1010))
    assert epoch(MixtureSampler(mixture, seed=3), 60) == epochs[60]  # a resumed run asks for no earlier epoch


def test_what_rounding_takes_comes_in_a_later_epoch():
    weights = {"questions": 1, "captions": 1.03, "grounding": 0.02}
    mixture = MixtureDataset(SETS, weights)
    sampler = MixtureSampler(mixture)
    names = [name for number in range(100) for name in epoch(sampler, number)]
    assert len(names) == 1800
    for name, weight in weights.items():
        assert sum(drawn[0] == name[0] for drawn in names) == pytest.approx(1800 * weight / 2.05, abs=1.01)
    questions = Counter(name for name in names if name[0] == "q")
    assert max(questions.values()) - min(questions.values()) <= 1


def test_a_small_share_has_a_block_too():
    mixture = MixtureDataset({"large": range(1000), "small": range(1000, 1010)}, {"large": 1, "small": 1e-4})
    sampler = MixtureSampler(mixture, block=4)
    drawn = [epoch(sampler, number) for number in range(5)]
    assert all(len(indices) == len(sampler) == 1016 for indices in drawn)
    assert set(Counter(index for indices in drawn for index in indices if index >= 1000).values()) == {2}


def test_indices_are_those_of_a_list():
    mixture, whole = MixtureDataset(SETS), sum(SETS.values(), [])
    assert [mixture[index] for index in range(-18, 18)] == whole * 2
    for index in (18, -19):
        with pytest.raises(IndexError, match=f"has 18 samples, got index {index}"):
            mixture[index]


def test_blocks_hold_one_data_set_each():
    sampler = MixtureSampler(MixtureDataset(SETS, EQUAL), block=4)
    drawn = epoch(sampler)
    blocks = [drawn[at : at + 4] for at in range(0, len(drawn), 4)]
    assert len(drawn) == len(sampler) == 24
    assert all(len({name[0] for name in block}) == 1 for block in blocks)
    assert len({block[0][0] for block in blocks}) == 3


@pytest.mark.parametrize(
    "sets, weights, message",
    [
        ({}, None, "at least one sample"),
        ({"a": [1], "b": []}, None, "'b': 0"),
        (SETS, {"questions": 1}, "one for each of"),
        (SETS, {**EQUAL, "captions": 0}, "must be positive"),
    ],
)
def test_bad_mixtures(sets, weights, message):
    with pytest.raises(ValueError, match=message):
        MixtureDataset(sets, weights)


@pytest.mark.parametrize("batches", ["mixed", "grouped"])
def test_training_on_a_mixture_resumes_across_epochs(make_trainer, tmp_path, batches):
    mixture = MixtureDataset(
        {"questions": [make_sample(1, seed=k) for k in range(4)], "grounding": [make_grounding_sample(1)]},
        {"questions": 1, "grounding": 1},
    )
    options = {"max_steps": 5, "save_strategy": "steps", "save_steps": 1, "mixture_batches": batches}
    whole = make_trainer(mixture, "whole", **options)
    whole.train()
    losses = [entry for entry in whole.state.log_history if "loss" in entry]
    grounded = [entry["loss_grounding"] > 0 for entry in losses]
    assert any(grounded) and (batches == "mixed" or not all(grounded))
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "resumed" / "checkpoint-2")
    resumed = make_trainer(mixture, "resumed", model=build_model(seed=9), **options)
    resumed.train(resume_from_checkpoint=True)
    again = [entry["loss"] for entry in resumed.state.log_history if "loss" in entry]
    assert again == [entry["loss"] for entry in losses]
