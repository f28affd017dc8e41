"""Attention in parts is attention over all keys, and leaves a model as it was."""

import threading

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import Qwen2Config, Qwen2Model

from modeling_ide3d import shared_prefix
from modeling_ide3d.shared_prefix import (
    attend,
    attend_backward,
    can_share_prefix,
    group_parts,
    merge_parts,
    only_rows,
    sharing_prefix,
)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(params=["fused", "plain"])
def kernel(request, monkeypatch):
    """The kernel of a CPU, and the products that other devices take, in many chunks."""
    if request.param == "plain":
        monkeypatch.setattr(shared_prefix, "_fused", shared_prefix._plain)
        monkeypatch.setattr(shared_prefix, "CHUNK_BYTES", 1000)


@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_two_parts_make_the_whole(kernel, key_heads):
    query, (key, value) = draw(2, 4, 9, 8), draw(2, 2, key_heads, 13, 8, seed=1)
    expected = scaled_dot_product_attention(query, key, value, scale=0.3, enable_gqa=True)
    parts = [attend(query, key[:, :, part], value[:, :, part], 0.3) for part in (slice(0, 5), slice(5, None))]
    output, sums = merge_parts(*parts)
    torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9)
    scores = (query @ key.repeat_interleave(4 // key_heads, 1).transpose(2, 3)) * 0.3
    torch.testing.assert_close(sums.double(), scores.logsumexp(-1), rtol=1e-6, atol=1e-6)


def test_causal_and_hidden_keys(kernel):
    query, (key, value) = draw(2, 4, 7, 8), draw(2, 2, 2, 7, 8, seed=1)
    expected = scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    output, _ = attend(query, key, value, 8**-0.5, is_causal=True)
    torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9)
    mask = torch.zeros(2, 1, 1, 7, dtype=torch.float64)
    mask[0, ..., 3:] = -torch.inf
    output, _ = attend(query, key, value, 8**-0.5, mask=mask)
    few = attend(query[:1], key[:1, :, :3], value[:1, :, :3], 8**-0.5)[0]
    torch.testing.assert_close(output[:1], few, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("far", [0.0, 300.0, -300.0])
def test_scores_far_apart_stay_exact(far):
    """One part may outweigh the other beyond the range of an exponential."""
    query, key, value = (draw(1, 1, 4, 8, seed=seed).float() for seed in range(3))
    key[:, :, 2:] += far * query.mean(2, keepdim=True)
    expected = scaled_dot_product_attention(query, key, value, scale=1.0)
    parts = [attend(query, key[:, :, part], value[:, :, part], 1.0) for part in (slice(0, 2), slice(2, None))]
    close = 1e-5 + abs(far) * 2.0**-22  # scores of that size are rounded so
    torch.testing.assert_close(merge_parts(*parts)[0], expected, rtol=close, atol=close)


@pytest.mark.parametrize("key_heads", [4, 2])
def test_gradients_of_parts_add_up(key_heads):
    query, (key, value) = draw(1, 4, 6, 8).requires_grad_(), draw(2, 1, key_heads, 10, 8, seed=1).requires_grad_()
    gradient = draw(1, 4, 6, 8, seed=2)
    output = scaled_dot_product_attention(query, key, value, scale=0.3, enable_gqa=True)
    expected = torch.autograd.grad(output, (query, key, value), gradient)
    query, key, value = query.detach(), key.detach(), value.detach()
    halves = slice(0, 4), slice(4, None)
    output, sums = merge_parts(*(attend(query, key[:, :, half], value[:, :, half], 0.3) for half in halves))
    found = [
        attend_backward(gradient, query, key[:, :, half], value[:, :, half], output, sums, 0.3) for half in halves
    ]
    torch.testing.assert_close(found[0][0] + found[1][0], expected[0], rtol=1e-6, atol=1e-6)
    for place in (1, 2):
        torch.testing.assert_close(
            torch.cat([part[place] for part in found], 2), expected[place], rtol=1e-6, atol=1e-6
        )


def test_parts_of_a_row_come_back_to_their_places():
    lengths = [3, 17, 1, 20, 4]
    starts = torch.tensor([0, *lengths]).cumsum(0).tolist()[:-1]
    row = draw(1, 2, sum(lengths), 3)
    groups = group_parts(starts, lengths, row.device)
    assert sum(group.shape[0] for group in groups) == len(lengths)
    assert max(group.shape[0] * group.shape[1] for group in groups) <= 40  # 17 and 20 side by side
    copied = shared_prefix.empty_row(row).fill_(torch.nan)
    for group in groups:
        group.put(copied, group.take(row))
    assert torch.equal(copied, row)


def test_stacked_heads_of_a_token_lie_side_by_side():
    query, key = draw(1, 4, 5, 3), draw(1, 2, 5, 3, seed=1)
    stacked = shared_prefix.stack_heads(query, key)
    assert stacked.transpose(1, 2).is_contiguous()
    found = stacked.split([4, 2], 1)
    assert torch.equal(found[0], query) and torch.equal(found[1], key)


@pytest.fixture
def language_model():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 40}
    config = Qwen2Config(**sizes, num_attention_heads=4, num_key_value_heads=2, attn_implementation="sdpa")
    return Qwen2Model(config).eval()


@torch.no_grad()
def test_rows_of_the_last_layer_are_those_of_all_rows(language_model):
    tokens, rows = torch.arange(12)[None], torch.tensor([3, 11])
    expected = language_model(tokens).last_hidden_state
    with only_rows(language_model.layers[-1], rows):
        states = language_model(tokens).last_hidden_state
        others: list[torch.Tensor] = []
        thread = threading.Thread(target=lambda: others.append(language_model(tokens).last_hidden_state))
        thread.start()
        thread.join()
    torch.testing.assert_close(states[:, rows], expected[:, rows])
    assert not torch.allclose(states, expected)
    assert torch.equal(others[0], expected)  # other threads are not concerned
    assert torch.equal(language_model(tokens).last_hidden_state, expected)


@torch.no_grad()
def test_without_a_plan_it_is_sdpa_and_the_configuration_stays(language_model):
    tokens = torch.arange(12)[None]
    mask = torch.ones_like(tokens)
    mask[:, :4] = 0
    expected = language_model(tokens, attention_mask=mask).last_hidden_state
    with pytest.raises(KeyError), sharing_prefix(language_model):
        assert torch.equal(language_model(tokens, attention_mask=mask).last_hidden_state, expected)
        raise KeyError
    assert language_model.config._attn_implementation == "sdpa"


def test_who_can_share_a_prefix():
    assert can_share_prefix(Qwen2Config(attn_implementation="sdpa"))
    assert not can_share_prefix(Qwen2Config(attn_implementation="eager"))
    windows = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    assert not can_share_prefix(Qwen2Config(attn_implementation="sdpa", **windows))


def test_a_torch_without_the_kernel_shares_no_prefix(monkeypatch):
    monkeypatch.setattr("modeling_ide3d.shared_prefix.CPU_KERNEL", "_a_kernel_of_another_version")
    assert not can_share_prefix(Qwen2Config(attn_implementation="sdpa"))
