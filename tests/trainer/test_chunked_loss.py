"""A training that scores its answers a few tokens at a time learns what it learns from all of them at once."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from training_samples import build_collator, build_model, make_mixed_batch
from transformers.loss.loss_utils import ForCausalLMLoss

from modeling_ide3d.auxiliary.chunked_loss import chunk_loss

TOKENS = 2


@pytest.fixture(scope="module")
def _model():
    return build_model().double().train()


@pytest.fixture
def model(_model):
    return copy.deepcopy(_model)


@pytest.fixture(scope="module")
def batch():
    """Packed chats, texts alone and videos of different length."""
    batch = build_collator()(make_mixed_batch())
    return {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}


class LargestLogits(TorchDispatchMode):
    """Most tokens of any tensor as wide as the vocabulary, weights and their gradients left out."""

    def __init__(self, vocab_size, hidden_size):
        super().__init__()
        self.vocab_size, self.hidden_size, self.tokens = vocab_size, hidden_size, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.ndim > 1 and leaf.shape[-1] == self.vocab_size:
                tokens = leaf.shape[:-1].numel()
                self.tokens = max(self.tokens, 0 if tokens == self.hidden_size else tokens)
        return result


def step(model, batch, chunk_size, **kwargs):
    model.loss_chunk_size = chunk_size
    outputs = model(**batch, **kwargs)
    model.zero_grad()
    outputs.loss.backward()
    return outputs, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("attention", ["sdpa", "shared_prefix"])
@pytest.mark.parametrize("chunk_size", [1, 12, 10**6])
def test_loss_and_gradients_are_those_of_all_tokens_at_once(model, batch, attention, chunk_size, checkpointing):
    model.set_attn_implementation({"text_config": attention})
    if checkpointing:
        model.activation_checkpointing_enable()
    (expected, reference), (outputs, gradients) = (step(model, batch, size) for size in (0, chunk_size))
    assert expected.logits is not None and outputs.logits is None
    torch.testing.assert_close(outputs.loss, expected.loss, rtol=1e-6, atol=0)  # the loss itself rounds to float32
    assert gradients.keys() == reference.keys()
    for name, gradient in gradients.items():
        assert (gradient - reference[name]).norm() <= 1e-6 * (reference[name].norm() + 1e-3), name


def test_no_more_logits_are_there_than_the_chunk_has(model, batch):
    sizes = model.config.text_config
    assert sizes.hidden_size > len(batch["input_ids"]) * TOKENS

    def largest(chunk_size):
        with LargestLogits(sizes.vocab_size, sizes.hidden_size) as logits:
            step(model, batch, chunk_size)
        return logits.tokens

    assert largest(len(batch["input_ids"]) * TOKENS) == len(batch["input_ids"]) * TOKENS < largest(0)


def test_logits_that_are_asked_for_are_there(model, batch):
    outputs, _ = step(model, batch, TOKENS, logits_to_keep=0)
    assert outputs.logits.shape[:2] == batch["input_ids"].shape
    model.eval()
    assert model(**batch).logits.shape[:2] == batch["input_ids"].shape


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_a_training_ends_with_the_same_weights(make_trainer, smoothing):
    """With two batches a step, of which each has a share of the answers, and figures of an evaluation."""
    settings = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2, "max_steps": 2}

    def train(chunk_size):
        torch.manual_seed(0)
        trainer = make_trainer(
            make_mixed_batch(), loss_chunk_size=chunk_size, label_smoothing_factor=smoothing, optim="sgd", **settings
        )
        trainer.train()
        return trainer.model.state_dict(), trainer.evaluate(make_mixed_batch())

    (expected, figures), (weights, others) = train(0), train(TOKENS)
    for name, weight in expected.items():
        torch.testing.assert_close(weights[name], weight, atol=1e-6, rtol=1e-5, msg=name)
    assert others["eval_token_accuracy"] == figures["eval_token_accuracy"]
    assert others["eval_loss_language"] == pytest.approx(figures["eval_loss_language"], rel=1e-5)


def test_targets_beyond_the_vocabulary_are_refused(model, batch):
    labels = batch["labels"].clone()
    labels[labels >= 0] = model.config.text_config.vocab_size
    with pytest.raises((ValueError, RuntimeError), match="labels must lie in"):
        step(model, {**batch, "labels": labels}, TOKENS)


def test_chunks_of_bfloat16_are_added_in_float32():
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(32, 500, bias=False, dtype=torch.bfloat16)
    states = torch.randn(1, 2048, 32, generator=generator).bfloat16()
    following = torch.randint(0, 500, (1, 2048), generator=generator)
    expected = ForCausalLMLoss(head(states), None, 500, shift_labels=following)
    loss = chunk_loss(head, ForCausalLMLoss, states, following, chunk_size=8)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)


def test_gradients_of_chunks_under_autocast_are_added_in_float32():
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(32, 500, bias=False)
    states = torch.randn(1, 2048, 32, generator=generator) + 0.5
    following = torch.randint(0, 500, (1, 2048), generator=generator)
    loss = ForCausalLMLoss(head(states), None, 500, shift_labels=following)
    (expected,) = torch.autograd.grad(loss, head.weight)
    with torch.autocast("cpu", torch.bfloat16):
        loss = chunk_loss(head, ForCausalLMLoss, states, following, chunk_size=8)
        assert torch.is_autocast_cache_enabled()
    (gradient,) = torch.autograd.grad(loss, head.weight)
    assert (gradient - expected).norm() < 1e-2 * expected.norm()
