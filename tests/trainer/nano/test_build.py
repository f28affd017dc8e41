"""The nano model: any text has tokens, sizes agree, weights start where it learns quickly."""

import pytest
import torch
from training_samples import WORDS, build_collator, build_model, make_mixed_batch, make_sample

from modeling_ide3d import IDE3DForConditionalGeneration
from processing import IDE3DProcessor
from trainer.nano.build import (
    build_nano_config,
    build_nano_model,
    build_nano_processor,
    grid_waves,
    standardize_regions,
)

SMALL = {"hidden_size": 32, "vision_layers": 2, "text_layers": 2, "heads": 2}


@pytest.fixture(scope="module")
def processor():
    return build_nano_processor(WORDS, image_size=30, patch_size=7, spatial_pool_stride=2, num_frames=2)


class TestProcessor:
    @pytest.mark.parametrize("text", ["How far is it?", "3.25 m", "Zürich 東京", "a\nb\t ", "<ground> and <video>"])
    def test_any_text_comes_back(self, processor, text):
        ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert processor.tokenizer.decode(ids) == text

    def test_common_words_are_one_token_and_digits_stay_apart(self, processor):
        tokens = processor.tokenizer.tokenize("assistant\n 123 m")
        assert len(tokens) <= 8 and sum(token[-1:].isdigit() for token in tokens) == 3

    def test_placeholders_are_single_tokens(self, processor):
        tokenizer = processor.tokenizer
        for token in ("<ground>", "<image>", "<video>", "<|im_start|>", "<|im_end|>"):
            assert len(tokenizer(token, add_special_tokens=False)["input_ids"]) == 1, token
        assert tokenizer.eos_token == "<|im_end|>" and tokenizer.pad_token_id != tokenizer.eos_token_id

    def test_the_vocabulary_is_bounded_and_does_not_depend_on_chance(self):
        first, second = (build_nano_processor(WORDS, vocab_size=300).tokenizer for _ in range(2))
        assert len(first) <= 300 and first.get_vocab() == second.get_vocab()

    def test_too_small_a_vocabulary_is_refused(self):
        with pytest.raises(ValueError, match="vocab_size must be at least 262"):
            build_nano_processor(WORDS, vocab_size=100)

    def test_round_trip(self, processor, tmp_path):
        processor.save_pretrained(tmp_path)
        loaded = IDE3DProcessor.from_pretrained(tmp_path)
        assert loaded.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
        assert loaded.token_grid == processor.token_grid == (2, 2)
        assert loaded.video_processor.num_frames == 2


class TestModel:
    def test_sizes_are_those_of_the_processor(self, processor):
        config = build_nano_config(processor, **SMALL)
        assert config.token_grid == processor.token_grid
        assert config.tokens_per_frame == processor.tokens_per_frame
        assert config.text_config.vocab_size == len(processor.tokenizer)
        assert config.video_token_id == processor.video_token_id
        assert config.text_config.eos_token_id == processor.tokenizer.eos_token_id

    def test_position_embeddings_are_waves(self, processor):
        config = build_nano_config(processor, **SMALL)
        model = build_nano_model(config)
        weight = model.model.vision_tower.embeddings.position_embedding.weight
        assert torch.equal(weight, 0.3 * grid_waves(*config.patch_grid, 32))
        assert weight.requires_grad
        torch.manual_seed(0)
        random = build_nano_model(config, position_scale=0)
        assert not torch.equal(random.model.vision_tower.embeddings.position_embedding.weight, weight)

    def test_heads_only_where_asked_for(self, processor):
        config = build_nano_config(processor, **SMALL)
        assert build_nano_model(config).geometry_state_dict() == {}
        assert build_nano_model(config, validator={}).geometric_validator is not None
        model = build_nano_model(config, teacher_size=5, validator={"output_stride": 7})
        assert model.geometric_validator.output_size(config.patch_grid) == config.patch_grid
        assert model.teacher_projector.config.teacher_size == 5

    def test_the_default_sizes_train_on_a_cpu(self):
        processor = build_nano_processor(WORDS)
        model = build_nano_model(build_nano_config(processor), teacher_size=24, validator={})
        assert sum(p.numel() for p in model.parameters()) < 5e6

    def test_a_batch_passes_and_the_weights_load_in_the_inference_class(self, tmp_path):
        collator = build_collator()
        model = build_nano_model(build_nano_config(collator.processor, **SMALL), teacher_size=6, validator={}).eval()
        batch = collator([make_sample(2, teacher=True)])
        loss = model(**batch).loss
        model.save_pretrained(tmp_path)
        loaded = IDE3DForConditionalGeneration.from_pretrained(tmp_path)
        names = ("input_ids", "attention_mask", "labels", "pixel_values_videos")
        assert torch.equal(loaded(**{name: batch[name] for name in names}).loss, loss)


def build_twice(processor, **changes):
    """The model with and without some of its initialisations, from the same random numbers."""
    config = build_nano_config(processor, **SMALL)
    models = []
    for scales in ({}, changes):
        torch.manual_seed(0)
        models.append(build_nano_model(config, **scales))
    return models


class TestInitialisation:
    def test_biases_of_half_of_the_heads(self, processor):
        with_bias, without = build_twice(processor, recency_scale=0)
        for layer, plain in zip(
            with_bias.model.language_model.layers, without.model.language_model.layers, strict=True
        ):
            for name in ("q_proj", "k_proj"):
                bias = getattr(layer.self_attn, name).bias
                assert (bias[:16] == 1.5).all() and (bias[16:] == 0).all() and bias.requires_grad
                assert not getattr(plain.self_attn, name).bias.any()

    def test_near_tokens_are_preferred(self, processor):
        config = build_nano_config(processor, **SMALL)
        words = torch.randn(8, 80, 32, generator=torch.Generator().manual_seed(0)) * 32**-0.5
        shares = []
        for scale in (0.0, 1.5):
            torch.manual_seed(0)
            model = build_nano_model(config, recency_scale=scale).eval().model.language_model
            model.set_attn_implementation("eager")
            attention = model(inputs_embeds=words, output_attentions=True).attentions[0]
            shares.append(attention[:, 0, -1, -10:].sum(-1).mean().item())  # a biased head, the last word
        assert shares[1] > 2 * shares[0]

    def test_values_and_outputs_are_near_the_identity(self, processor):
        mixed, random = build_twice(processor, identity_scale=0)
        for layer, plain in zip(mixed.model.language_model.layers, random.model.language_model.layers, strict=True):
            for name in ("v_proj", "o_proj"):
                weight = getattr(plain.self_attn, name).weight
                expected = 0.3 * weight + 0.7 * torch.eye(32)
                torch.testing.assert_close(getattr(layer.self_attn, name).weight, expected)
                assert getattr(layer.self_attn, name).weight.requires_grad


class TestStandardizedRegions:
    @staticmethod
    def features(model, batches):
        found = []
        for batch in batches:
            video = model.get_video_features(
                batch["pixel_values_videos"], batch.get("video_frame_mask"), return_dict=True
            )
            pooled, empty, _ = model.model.get_region_features(
                batch["input_ids"], {"video": video}, batch["region_masks"]
            )
            found.append(pooled[batch["region_valid"] & ~empty])
        return torch.cat(found)

    @torch.no_grad()
    def test_features_get_mean_0_and_deviation_1(self):
        collator, model = build_collator(), build_model().eval()
        samples = make_mixed_batch()
        batches = [collator(samples[2:4]), collator(samples[3:4])]
        before = self.features(model, batches)
        standardize_regions(model, [*batches, collator(samples[:1])])  # the last has no regions
        after = self.features(model, batches)
        torch.testing.assert_close(after.mean(0), torch.zeros(32), atol=1e-4, rtol=0)
        torch.testing.assert_close(after.std(0), before.std(0) / (before.std(0) + 1e-3), atol=1e-3, rtol=1e-3)
        assert before.mean(0).abs().max() > 1e-2

    def test_too_few_regions_raise(self):
        collator, model = build_collator(), build_model()
        with pytest.raises(ValueError, match="at least two regions.*got 0"):
            standardize_regions(model, [collator([make_sample(1)])])


class TestWaves:
    @pytest.mark.parametrize("shape", [(5, 5, 32), (4, 7, 30), (1, 1, 8), (27, 27, 64)])
    def test_every_cell_has_its_own_row(self, shape):
        rows, cols, channels = shape
        waves = grid_waves(rows, cols, channels)
        assert waves.shape == (rows * cols, channels) and torch.isfinite(waves).all()
        assert waves.abs().max() <= 1
        distance = torch.cdist(waves, waves) + 10 * torch.eye(len(waves))
        assert distance.min() > 0.01

    def test_the_mean_over_a_region_tells_where_it_is(self):
        """What random embeddings lose: the longest wave of a block's mean grows with its column."""
        waves = grid_waves(8, 8, 32).unflatten(0, (8, 8))
        columns = waves[:4, :, 16]  # first sine of the columns, a wavelength of four pictures
        means = torch.stack([columns[:, c : c + 3].mean() for c in range(6)])
        assert (means.diff() > 0.05).all()

    def test_rows_do_not_leak_into_columns(self):
        waves = grid_waves(4, 4, 16).unflatten(0, (4, 4))
        assert torch.equal(waves[0, 0, 8:], waves[3, 0, 8:]) and torch.equal(waves[0, 0, :8], waves[0, 3, :8])
