"""Questions that are answered from regions alone, in bulk."""

import pytest
import torch
from training_samples import build_model, build_processor, make_regions, make_sample

from trainer.session.region_reading import answer_from_regions, pool_sample_regions

QUESTIONS = ("How far is <ground>?", "Where is the ball? <ground> or <ground>?")


def pointing_sample(seed: int) -> dict:
    questions = [{"question": text} for text in QUESTIONS]
    masks = make_regions(3, 2, seed)
    return make_sample(2, seed=seed, questions=questions, region_masks=masks, region_references=[0, 2, 1])


@pytest.fixture(scope="module")
def processor():
    return build_processor()


@pytest.fixture(scope="module")
def model():
    return build_model(seed=5).eval()


def test_answers_do_not_depend_on_what_is_asked_together(model, processor):
    samples = [pointing_sample(seed) for seed in range(3)]
    together = answer_from_regions(model, processor, samples, max_new_tokens=4)
    alone = [answer_from_regions(model, processor, [s], max_new_tokens=4, questions_at_once=1)[0] for s in samples]
    assert together == alone
    assert [len(answers) for answers in together] == [2, 2, 2]


def generated(model, processor, sample, new_tokens):
    """Tokens of the first question of a sample, by `generate` behind the embeddings that the model is to read."""
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": QUESTIONS[0]}]}],
        tokenize=False,
        add_generation_prompt=True,
    )
    tail = text.partition(processor.video_token)[2]
    tokens = torch.tensor(processor.tokenizer(tail, add_special_tokens=False)["input_ids"])
    embeds = model.get_input_embeddings()(tokens).detach()
    embeds[tokens == model.config.ground_token_id] = pool_sample_regions(model, processor, [sample])[0][:1]
    settings = {"max_new_tokens": new_tokens, "do_sample": False}
    mask = torch.ones(1, len(embeds), dtype=torch.long)
    return model.generate(inputs_embeds=embeds[None], attention_mask=mask, **settings)[0].tolist()


def test_an_answer_ends_at_any_end_token_of_the_model(model, processor, monkeypatch):
    """Exports end an answer at the tokenizer's end token and at the end of a turn."""
    sample = pointing_sample(0)
    vocabulary = model.config.text_config.vocab_size
    monkeypatch.setattr(model.generation_config, "eos_token_id", [vocabulary - 1])
    free = generated(model, processor, sample, 6)
    ends = [vocabulary - 1, free[2]]  # the second one is what the answer meets
    monkeypatch.setattr(model.generation_config, "eos_token_id", ends)
    expected = generated(model, processor, sample, 6)
    assert expected == free[: free.index(free[2]) + 1]
    answer = answer_from_regions(model, processor, [sample], max_new_tokens=6)[0][0]
    assert answer == processor.decode(expected, skip_special_tokens=True)


def test_a_region_is_the_mean_of_its_visual_tokens(model, processor):
    sample = pointing_sample(0)
    pooled = pool_sample_regions(model, processor, [sample])[0]
    masks = torch.from_numpy(sample["region_masks"])
    pixels = processor.video_processor([sample["frames"]], do_sample_frames=False, return_tensors="pt")
    with torch.no_grad():
        tokens = model.get_video_features(pixels["pixel_values_videos"], return_dict=True).pooler_output[0]
    rows, cols = model.config.token_grid
    grid = tokens.unflatten(0, (2, rows, cols + 1))[:, :, :cols]
    for region, feature in zip(masks, pooled, strict=True):
        torch.testing.assert_close(feature, grid[region].mean(0))


def test_an_empty_region_is_the_mean_of_the_video(model, processor):
    sample = pointing_sample(1)
    sample["region_masks"][:] = False
    pooled = pool_sample_regions(model, processor, [sample])[0]
    assert torch.equal(pooled[0], pooled[2]) and bool(pooled[0].any())


def test_refusals(model, processor):
    sample = pointing_sample(0)
    sample["questions"] = [{"question": "Where is the ball?"}]
    with pytest.raises(ValueError, match="points at no region"):
        answer_from_regions(model, processor, [sample])
    model.train()
    try:
        with pytest.raises(ValueError, match="training mode"):
            answer_from_regions(model, processor, [sample])
    finally:
        model.eval()
