"""Batches of one length: every sample once an epoch, little padding, and an order of seed and epoch alone."""

import numpy as np
import torch
from training_samples import build_collator, chat, make_sample

from trainer.loop.length_groups import LengthSampler, measure_lengths


def test_every_sample_comes_once_with_others_of_its_length():
    lengths = np.random.default_rng(0).integers(10, 500, 1003).tolist()
    order = list(LengthSampler(lengths, batch=4))
    assert sorted(order) == list(range(1003))
    padded = sum(4 * max(lengths[i] for i in order[at : at + 4]) for at in range(0, 1000, 4))
    assert padded < 1.06 * sum(lengths)
    longest = [max(lengths[i] for i in order[at : at + 4]) for at in range(0, 1000, 4)]
    assert abs(np.corrcoef(longest, range(250))[0, 1]) < 0.2  # not from long to short


def test_seed_and_epoch_alone_give_the_order():
    sampler = LengthSampler(range(50), 4, seed=1)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    torch.manual_seed(5)
    again = LengthSampler(range(50), 4, seed=1)
    assert list(again) == first != second
    again.set_epoch(1)
    assert list(again) == second and list(LengthSampler(range(50), 4, seed=2)) != first


def test_lengths_count_words_and_pictures():
    collator = build_collator()
    samples = [
        make_sample(1),
        make_sample(3),
        make_sample(1, messages=[chat("Name it.", "The ball")] * 9),
        {"messages": chat(kind=None)},
    ]
    lengths = measure_lengths(samples, collator)
    true = [int(collator([sample])["attention_mask"].sum()) for sample in samples]
    assert np.argsort(lengths).tolist() == np.argsort(true).tolist()
    assert lengths[1] - lengths[0] == true[1] - true[0]
