"""Heads that look for what a word names: where they look, and what they leave as it was."""

import pytest
import torch

from trainer.nano.build import build_nano_config, build_nano_model, build_nano_processor, search_by_words

COLOURS, KINDS = ("red", "green", "blue"), ("chair", "table", "lamp", "sofa")
TEXT = "How far is the {} {} from the camera?"


@pytest.fixture
def processor():
    return build_nano_processor([TEXT.format(c, k) for c in COLOURS for k in KINDS] * 50, image_size=32, num_frames=1)


@pytest.fixture
def model(processor):
    """As naming leaves it: a visual token is the sum of the words of what it shows."""
    torch.manual_seed(0)
    config = build_nano_config(processor, hidden_size=64, text_layers=3, rope_theta=1e6, tie_word_embeddings=True)
    config._attn_implementation = config.text_config._attn_implementation = "eager"
    return build_nano_model(config).eval()


def first_tokens(processor, words) -> list[int]:
    return [processor.tokenizer.encode(f" {word}")[0] for word in words]


@torch.no_grad()
def attention_of(model, processor, colour: str, kind: str) -> torch.Tensor:
    """Share (layers, cells) of the searching heads' attention from the kind's token to each cell."""
    embeddings = model.get_input_embeddings().weight
    shown = [(c, k) for c in COLOURS for k in KINDS]
    cells = torch.stack([embeddings[first_tokens(processor, pair)].sum(0) for pair in shown])
    cells = 8 * torch.nn.functional.normalize(torch.cat([cells, cells[:4]]), dim=-1)
    mark = model.model.multi_modal_projector.linear_2.bias
    text = f"<video> {TEXT.format(colour, kind)}"
    inputs = processor(text=[text], videos=[torch.zeros(1, 3, 32, 32)], return_tensors="pt", do_sample_frames=False)
    encoded = model.get_video_features(inputs["pixel_values_videos"], return_dict=True)
    grid = encoded.pooler_output[0].unflatten(0, (1, 4, 5)).clone()
    grid[0, :, :4] = (cells + mark).unflatten(0, (4, 4))
    encoded.pooler_output = [grid.flatten(0, 2)]
    outputs = model(input_ids=inputs["input_ids"], mm_encoder_outputs={"video": encoded}, output_attentions=True)
    ids = inputs["input_ids"][0]
    asked = (ids == first_tokens(processor, [kind])[0]).nonzero()[-1, 0]
    places = (ids == processor.video_token_id).nonzero().flatten().unflatten(0, (4, 5))[:, :4].flatten()
    return torch.stack([weights[0, 2:, asked, places].mean(0) for weights in outputs.attentions])


def test_a_kind_with_its_colour_is_found(model, processor):
    groups = [first_tokens(processor, words) for words in (COLOURS, KINDS)]
    before = attention_of(model, processor, "green", "lamp")
    with torch.no_grad():
        model.model.multi_modal_projector.linear_2.bias.zero_()
        search_by_words(model, groups)
    after = attention_of(model, processor, "green", "lamp")
    wanted = COLOURS.index("green") * len(KINDS) + KINDS.index("lamp")
    assert after[1:].argmax(-1).tolist() == [wanted] * 2  # the first layer gathers the words
    assert (after[1:, wanted] > 3 / 16).all() and before[1:, wanted].max() < 3 / 16


def test_words_keep_their_differences_and_no_word_is_marked(model, processor):
    groups = [first_tokens(processor, words) for words in (COLOURS, KINDS)]
    embeddings = model.get_input_embeddings().weight
    differences = [embeddings[group] - embeddings[group].mean(0) for group in groups]
    differences = [difference.detach().clone() for difference in differences]
    search_by_words(model, groups)
    for group, before in zip(groups, differences, strict=True):
        torch.testing.assert_close(embeddings[group] - embeddings[group].mean(0), before, atol=1e-5, rtol=1e-4)
    mark = torch.nn.functional.normalize(model.model.multi_modal_projector.linear_2.bias.detach(), dim=0)
    assert (embeddings @ mark).abs().max() < (model.model.multi_modal_projector.linear_2.bias @ mark) / 3
    assert model.lm_head.weight is embeddings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tie_word_embeddings": False}, "set tie_word_embeddings"),
        ({"rope_theta": 100.0}, "larger rope_theta"),
        ({"heads": 1}, "an even number"),
    ],
)
def test_models_that_cannot_search_are_refused(processor, change, message):
    options = {"hidden_size": 64, "rope_theta": 1e6, "tie_word_embeddings": True} | change
    model = build_nano_model(build_nano_config(processor, **options))
    with pytest.raises(ValueError, match=message):
        search_by_words(model, [first_tokens(processor, words) for words in (COLOURS, KINDS)])
