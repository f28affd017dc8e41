"""The forward pass: features, placeholders, batches, attention backends, outputs and errors."""

import inspect

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from modeling_ide3d import IDE3DForConditionalGeneration, IDE3DModel
from modeling_ide3d.modeling_ide3d import IDE3DCausalLMOutputWithPast, IDE3DModelOutputWithPast

pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.fixture
def no_grad():
    with torch.no_grad():
        yield


# Signature and outputs


def test_forward_signature():
    names = list(inspect.signature(IDE3DForConditionalGeneration.forward).parameters)
    assert names[1] == "input_ids"
    wanted = {"pixel_values", "pixel_values_videos", "video_frame_mask", "attention_mask", "position_ids", "labels"}
    wanted |= {"cache", "inputs_embeds", "use_cache", "logits_to_keep", "mm_token_type_ids"}
    wanted |= {"region_masks", "region_valid", "region_references", "mm_encoder_outputs"}
    assert wanted <= set(names)


@pytest.mark.parametrize("base", [False, True])
def test_tuple_output_equals_the_dict(tiny_model, tiny_inputs, base):
    model, output_class = (tiny_model.model, IDE3DModelOutputWithPast) if base else (tiny_model, None)
    inputs = tiny_inputs([2, "text"], ["text"])
    named = model(**inputs, output_hidden_states=True, use_cache=False)
    plain = model(**inputs, output_hidden_states=True, use_cache=False, return_dict=False)
    assert isinstance(named, output_class or IDE3DCausalLMOutputWithPast)
    assert isinstance(plain, tuple)
    assert len(plain) == len(named.to_tuple())
    torch.testing.assert_close(plain, named.to_tuple(), rtol=0, atol=0)


def test_logits_have_the_vocabulary_and_the_head_is_applied_to_the_last_state(tiny_model, tiny_inputs):
    inputs = tiny_inputs([1, "text"])
    outputs = tiny_model(**inputs)
    assert outputs.logits.shape == (*inputs["input_ids"].shape, tiny_model.config.text_config.vocab_size)
    torch.testing.assert_close(outputs.logits, tiny_model.lm_head(outputs.last_hidden_state))


def test_hidden_states_of_the_language_model(tiny_model, tiny_inputs):
    inputs = tiny_inputs([1, "text"], ["text"])
    text = tiny_model.config.text_config
    outputs = tiny_model(**inputs, output_hidden_states=True)
    assert len(outputs.hidden_states) == text.num_hidden_layers + 1
    for state in outputs.hidden_states:
        assert state.shape == (*inputs["input_ids"].shape, text.hidden_size)
    torch.testing.assert_close(outputs.hidden_states[-1], outputs.last_hidden_state)


def test_attentions_in_eager_mode(tiny_model, tiny_inputs):
    tiny_model.set_attn_implementation("eager")
    inputs = tiny_inputs([1, "text"])
    text, length = tiny_model.config.text_config, inputs["input_ids"].shape[1]
    attentions = tiny_model(**inputs, output_attentions=True).attentions
    assert len(attentions) == text.num_hidden_layers
    assert attentions[0].shape == (1, text.num_attention_heads, length, length)
    torch.testing.assert_close(attentions[0].sum(-1), torch.ones(1, text.num_attention_heads, length))
    assert attentions[0].triu(1).abs().max() == 0


def test_logits_to_keep(tiny_model, tiny_inputs):
    inputs = tiny_inputs([1, "text"])
    logits = tiny_model(**inputs).logits
    torch.testing.assert_close(tiny_model(**inputs, logits_to_keep=2).logits, logits[:, -2:])
    index = torch.tensor([0, 5])
    torch.testing.assert_close(tiny_model(**inputs, logits_to_keep=index).logits, logits[:, index])


def test_visual_tokens_are_returned(tiny_model, tiny_inputs):
    inputs = tiny_inputs([2, "image", "text"], [1])
    outputs = tiny_model(**inputs)
    per_frame, width = tiny_model.config.tokens_per_frame, tiny_model.config.text_config.hidden_size
    assert outputs.video_hidden_states.shape == (3 * per_frame, width)
    assert outputs.image_hidden_states.shape == (per_frame, width)


def test_outputs_of_the_encoders_are_returned(tiny_model, tiny_inputs):
    """As native models do: states and attentions of the vision tower, and one tensor of tokens for each item."""
    tiny_model.set_attn_implementation("eager")
    inputs = tiny_inputs([2, "image", "text"], [1])
    for model in (tiny_model, tiny_model.model):
        outputs = model(**inputs, output_hidden_states=True, output_attentions=True)
        tokens = torch.cat(outputs.video_outputs.pooler_output)
        assert torch.equal(tokens, outputs.video_hidden_states)
        assert len(outputs.video_outputs.pooler_output) == 2
        assert len(outputs.image_outputs.pooler_output) == 1
        text = model(**tiny_inputs(["text"]))
        assert text.image_outputs is None
        assert text.video_outputs is None


def test_plain_trainer_joins_logits_alone(tiny_model, tiny_inputs, tmp_path):
    batches = [tiny_inputs([2, "text"]), tiny_inputs(["image", 1, "text"])]
    rows = [{**batch, "labels": batch["input_ids"]} for batch in batches]
    arguments = TrainingArguments(tmp_path, per_device_eval_batch_size=1, use_cpu=True, report_to=[])
    trainer = Trainer(tiny_model, arguments, data_collator=lambda samples: samples[0], eval_dataset=rows)
    predictions = trainer.predict(rows).predictions
    assert len(predictions) == 2  # logits and the last states
    assert predictions[0].shape[0] == 2


# Visual features


def test_video_features_follow_the_written_pipeline(tiny_model):
    """Layer -1 before the final norm, projector, bilinear pooling, one newline at the end of each row."""
    model, config = tiny_model.model, tiny_model.config
    frames = torch.randn(2, 3, 3, 70, 70)
    tokens = model.get_video_features(frames).pooler_output
    states = model.vision_tower(frames.flatten(0, 1), output_hidden_states=True).hidden_states[-1]
    (rows, cols), (patch_rows, patch_cols) = config.token_grid, config.patch_grid
    grid = model.multi_modal_projector(states).reshape(6, patch_rows, patch_cols, -1).permute(0, 3, 1, 2)
    pooled = nn.functional.interpolate(grid, size=(rows, cols), mode="bilinear").permute(0, 2, 3, 1)
    got = torch.stack(tokens).reshape(6, rows, cols + 1, -1)
    torch.testing.assert_close(got[:, :, :cols], pooled, atol=1e-6, rtol=1e-5)
    assert torch.equal(got[:, :, cols], model.image_newline.expand(6, rows, -1))


def test_vision_state_is_read_before_the_last_norm(tiny_model):
    tower = tiny_model.get_encoder("video")
    outputs = tower(torch.randn(1, 3, 70, 70), output_hidden_states=True)
    assert not torch.allclose(outputs.hidden_states[-1], outputs.last_hidden_state, atol=1e-3)
    torch.testing.assert_close(tower.post_layernorm(outputs.hidden_states[-1]), outputs.last_hidden_state)
    frames = torch.randn(1, 1, 3, 70, 70)
    before = tiny_model.get_video_features(frames).pooler_output[0]
    nn.init.zeros_(tower.post_layernorm.weight)
    assert torch.equal(tiny_model.get_video_features(frames).pooler_output[0], before)


@pytest.mark.parametrize("layers", [[1], [0, 1], [-1], [0, 1, 2]])
def test_selected_vision_layers_are_kept(tiny_model, layers):
    frames = torch.randn(1, 2, 3, 70, 70)
    full = tiny_model.get_video_features(frames, output_hidden_states=True)
    some = tiny_model.get_video_features(frames, output_hidden_states=layers)
    assert torch.equal(some.pooler_output[0], full.pooler_output[0])
    for layer in layers:
        assert some.hidden_states[layer].shape == (2, 25, 32)
        assert torch.equal(some.hidden_states[layer], full.hidden_states[layer])


def test_other_vision_feature_layer(make_tiny_model, tiny_config):
    model = make_tiny_model(tiny_config(vision_feature_layer=1))
    other = make_tiny_model(tiny_config(vision_feature_layer=-2))
    frames = torch.randn(1, 1, 3, 70, 70)
    assert torch.equal(
        model.get_video_features(frames).pooler_output[0], other.get_video_features(frames).pooler_output[0]
    )
    last = make_tiny_model().get_video_features(frames).pooler_output[0]
    assert not torch.allclose(model.get_video_features(frames).pooler_output[0], last, atol=1e-4)


@pytest.mark.parametrize("base", [False, True])
def test_feature_methods_return_a_list_per_item(tiny_model, base):
    model = tiny_model.model if base else tiny_model
    per_frame, width = tiny_model.config.tokens_per_frame, tiny_model.config.text_config.hidden_size
    images = model.get_image_features(torch.randn(3, 3, 70, 70))
    assert [tuple(item.shape) for item in images.pooler_output] == [(per_frame, width)] * 3
    assert images.last_hidden_state.shape == (3, 25, 32)
    mask = torch.tensor([[True, False], [True, True]])
    videos = model.get_video_features(torch.randn(2, 2, 3, 70, 70), mask)
    assert [len(item) for item in videos.pooler_output] == [per_frame, 2 * per_frame]
    assert isinstance(model.get_image_features(torch.randn(3, 3, 70, 70), return_dict=False), tuple)


def test_image_is_a_video_of_one_frame(tiny_model, tiny_inputs):
    frame = torch.randn(1, 3, 70, 70)
    image = tiny_model.get_image_features(frame).pooler_output[0]
    assert torch.equal(image, tiny_model.get_video_features(frame[None]).pooler_output[0])
    inputs = tiny_inputs(["text", "image", "text"])
    logits = tiny_model(**inputs).logits
    as_video = inputs["input_ids"].masked_fill(inputs["input_ids"] == 100, 101)
    video_logits = tiny_model(as_video, pixel_values_videos=inputs["pixel_values"][None]).logits
    torch.testing.assert_close(video_logits, logits)


def test_padded_frames_are_never_read(tiny_model, tiny_inputs):
    inputs = tiny_inputs([1, "text"], [3, "text"])
    logits = tiny_model(**inputs).logits
    inputs["pixel_values_videos"][0, 1:] = torch.nan
    assert torch.equal(tiny_model(**inputs).logits, logits)


def test_frame_mask_may_have_holes(tiny_model):
    frames = torch.randn(1, 3, 3, 70, 70)
    tokens = tiny_model.get_video_features(frames, torch.tensor([[True, False, True]])).pooler_output[0]
    assert torch.equal(tokens, tiny_model.get_video_features(frames[:, ::2]).pooler_output[0])


@pytest.mark.parametrize("frames", [1, 2, 5, 33])
def test_any_number_of_frames(tiny_model, tiny_inputs, frames):
    inputs = tiny_inputs(["text", frames, "text"])
    logits = tiny_model(**inputs).logits
    assert logits.shape[1] == frames * tiny_model.config.tokens_per_frame + 8
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    "sizes",
    [
        {"vision": {"image_size": 64, "patch_size": 16}},
        {"vision": {"image_size": 72}},
        {"vision": {"image_size": 28}},
        {"vision": {"num_channels": 1}},
        {"spatial_pool_stride": 1},
        {"spatial_pool_stride": 3},
    ],
)
def test_any_vision_size(make_tiny_model, tiny_config, tiny_inputs, sizes):
    config = tiny_config(**sizes)
    model = make_tiny_model(config)
    inputs = tiny_inputs([2, "text", "ground"], ["image", "text", "ground"], config=config, regions=2)
    assert tiny_model_answers(model, inputs)


def test_a_head_in_the_vision_tower_changes_nothing(make_tiny_model, tiny_config, tiny_inputs):
    plain = make_tiny_model()
    model = make_tiny_model(tiny_config(vision={"vision_use_head": True}))
    model.load_state_dict(plain.state_dict(), strict=False)
    inputs = tiny_inputs([2, "text"])
    torch.testing.assert_close(model(**inputs).logits, plain(**inputs).logits)


@pytest.mark.parametrize(
    "text",
    [
        {"model_type": "llama"},
        {"model_type": "qwen3", "head_dim": 12},
        {"num_key_value_heads": 4, "hidden_size": 32, "num_hidden_layers": 3},
        {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    ],
)
def test_other_language_models(make_tiny_model, tiny_config, tiny_inputs, text):
    config = tiny_config(text=text)
    model = make_tiny_model(config)
    assert model.get_decoder().config.model_type == text.get("model_type", "qwen2")
    assert tiny_model_answers(
        model, tiny_inputs([1, "text", "ground"], ["text", "ground"], config=config, regions=[1, 0])
    )


def tiny_model_answers(model, inputs) -> bool:
    prompt = {key: value for key, value in inputs.items() if not key.startswith("region")}
    # The last token is the `<ground>` of an answer, which `generate` has not written yet.
    prompt |= {key: prompt[key][:, :-1] for key in ("input_ids", "attention_mask")}
    tokens = model.generate(**prompt, max_new_tokens=3, do_sample=False, suppress_tokens=[100, 101])
    scores = model.ground(**inputs)
    return tokens.shape[1] == prompt["input_ids"].shape[1] + 3 and not scores.isnan().any()


# Batches


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_padded_batch_gives_the_logits_of_its_samples(tiny_model, tiny_inputs, padding_side):
    """Videos of several lengths, two videos, an image and plain text in one batch."""
    samples = [[3, "text"], ["text", 1, "text", 2, "text"], ["text", "text"], ["image", 1, "text"]]
    batch = tiny_inputs(*samples, padding_side=padding_side)
    logits = tiny_model(**batch).logits
    videos = list(zip(batch["pixel_values_videos"], batch["video_frame_mask"], strict=True))
    for index, sample in enumerate(samples):
        own = batch["attention_mask"][index].bool()
        single = {"input_ids": batch["input_ids"][index : index + 1, own]}
        if numbers := [part for part in sample if isinstance(part, int)]:
            pixels, masks = zip(*[videos.pop(0) for _ in numbers], strict=True)
            single |= {"pixel_values_videos": torch.stack(pixels), "video_frame_mask": torch.stack(masks)}
        if "image" in sample:
            single["pixel_values"] = batch["pixel_values"]
        torch.testing.assert_close(logits[index, own], tiny_model(**single).logits[0], atol=2e-5, rtol=1e-4)


def test_order_of_the_samples_does_not_matter(tiny_model, tiny_inputs):
    batch = tiny_inputs([2, "text"], [2, "text"], [2, "text"])
    logits = tiny_model(**batch).logits
    flipped = {key: value.flip(0) for key, value in batch.items()}
    torch.testing.assert_close(tiny_model(**flipped).logits.flip(0), logits, atol=1e-5, rtol=1e-4)


def test_precomputed_features_give_the_same_logits(tiny_model, tiny_inputs):
    inputs = tiny_inputs([2, "image", "text"], [1, "text"])
    logits = tiny_model(**inputs).logits
    encoded = {
        "image": tiny_model.get_image_features(inputs.pop("pixel_values")),
        "video": tiny_model.get_video_features(inputs.pop("pixel_values_videos"), inputs.pop("video_frame_mask")),
    }
    assert torch.equal(tiny_model(**inputs, mm_encoder_outputs=encoded).logits, logits)


def test_embeddings_instead_of_tokens(tiny_model, tiny_inputs):
    inputs = tiny_inputs([2, "text"], ["text", 1])
    logits = tiny_model(**inputs).logits
    embeds = tiny_model.get_input_embeddings()(inputs.pop("input_ids"))
    assert torch.equal(tiny_model(inputs_embeds=embeds, **inputs).logits, logits)


# Regions in a prompt


def test_reference_takes_the_mean_token_of_its_region(tiny_model, tiny_inputs):
    inputs = tiny_inputs([2, "text", "ground", "text"], regions=1)
    tokens = tiny_model.get_video_features(inputs["pixel_values_videos"]).pooler_output[0]
    (rows, cols), mask = tiny_model.config.token_grid, inputs["region_masks"][0, 0]
    mean = tokens.reshape(2, rows, cols + 1, -1)[:, :, :cols][mask].mean(0)
    states = tiny_model(**inputs, output_hidden_states=True).hidden_states[0]
    torch.testing.assert_close(states[inputs["input_ids"] == 102][0], mean)
    others = inputs["input_ids"] != 102
    plain = {key: value for key, value in inputs.items() if not key.startswith("region")}
    assert torch.equal(states[others], tiny_model(**plain, output_hidden_states=True).hidden_states[0][others])


def test_explicit_references_choose_and_repeat_regions(tiny_model, tiny_inputs):
    inputs = tiny_inputs([2, "ground", "text", "ground"], [1, "ground", "text"], regions=[2, 1])
    default = tiny_model(**inputs).logits
    explicit = tiny_model(**inputs, region_references=torch.tensor([[0, 1], [0, -1]])).logits
    assert torch.equal(explicit, default)
    states = tiny_model(
        **inputs, region_references=torch.tensor([[1, 1], [-1, -1]]), output_hidden_states=True
    ).hidden_states[0]
    first, second, free = states[inputs["input_ids"] == 102]
    assert torch.equal(first, second)
    assert torch.equal(free, tiny_model.get_input_embeddings()(torch.tensor(102)))


def test_reference_to_an_unseen_region_is_the_mean_of_the_video(tiny_model, tiny_inputs):
    inputs = tiny_inputs([2, "ground"], [1, "ground"], regions=1)
    inputs["region_masks"][1] = False
    states = tiny_model(**inputs, output_hidden_states=True).hidden_states[0]
    tokens = tiny_model.get_video_features(inputs["pixel_values_videos"][1:, :1]).pooler_output[0]
    rows, cols = tiny_model.config.token_grid
    mean = tokens.reshape(rows, cols + 1, -1)[:, :cols].flatten(0, 1).mean(0)
    torch.testing.assert_close(states[1, inputs["input_ids"][1] == 102][0], mean)


def test_a_spare_ground_token_stays_a_word(tiny_model, tiny_inputs):
    inputs = tiny_inputs([1, "ground", "text", "ground"], regions=1)
    states = tiny_model(**inputs, output_hidden_states=True).hidden_states[0]
    spare = states[inputs["input_ids"] == 102][1]
    assert torch.equal(spare, tiny_model.get_input_embeddings()(torch.tensor(102)))


# Bad input


@pytest.mark.parametrize(
    ("drop", "message"),
    [
        (1, "The text has 47 video tokens, the videos give 48"),
        (12, "The text has 36 video tokens, the videos give 48"),
    ],
)
def test_fewer_placeholders_than_visual_tokens_raise(tiny_model, tiny_inputs, drop, message):
    inputs = tiny_inputs([2], [2])
    inputs["input_ids"][1, :drop] = 5
    with pytest.raises(ValueError, match=message):
        tiny_model(**inputs)


def test_more_placeholders_than_videos_raise(tiny_model, tiny_inputs):
    inputs = tiny_inputs([2, "text"], [1, "text"])
    inputs["pixel_values_videos"], inputs["video_frame_mask"] = inputs["pixel_values_videos"][:1], None
    with pytest.raises(ValueError, match="The text has 36 video tokens, the videos give 24"):
        tiny_model(**inputs)


@pytest.mark.parametrize(("part", "name"), [(1, "video"), ("image", "image")])
def test_placeholders_without_pixels_raise(tiny_model, tiny_inputs, part, name):
    inputs = tiny_inputs([part, "text"])
    with pytest.raises(ValueError, match=f"The text has 12 {name} tokens, the {name}s give 0 .* Pass the pixels"):
        tiny_model(input_ids=inputs["input_ids"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixel_values_videos": torch.zeros(2, 3, 70, 70)}, r"num_videos, num_frames.*got \(2, 3, 70, 70\)"),
        ({"pixel_values_videos": torch.zeros(1, 2, 3, 70, 84)}, r"\(\.\.\., 3, 70, 70\).*got \(2, 3, 70, 84\)"),
        ({"pixel_values_videos": torch.zeros(1, 2, 4, 70, 70)}, r"\(\.\.\., 3, 70, 70\)"),
        ({"pixel_values_videos": torch.zeros(1, 0, 3, 70, 70), "video_frame_mask": None}, "at least one frame"),
        ({"pixel_values_videos": torch.zeros(0, 2, 3, 70, 70), "video_frame_mask": None}, r"one frame, got \[\]"),
        ({"video_frame_mask": torch.zeros(1, 2, dtype=torch.bool)}, r"at least one frame, got \[0\]"),
        ({"video_frame_mask": torch.ones(2, 2, dtype=torch.bool)}, r"video_frame_mask must have shape \(1, 2\)"),
        ({"pixel_values": torch.zeros(1, 1, 3, 70, 70)}, r"pixel_values must have shape \(num_images"),
        (
            {"region_masks": torch.ones(1, 1, 2, 5, 5, dtype=torch.bool)},
            r"\(1, num_regions, 2, 3, 3\).*got \(1, 1, 2, 5",
        ),
        ({"region_masks": torch.ones(1, 3, 2, 3, 3, dtype=torch.bool)}, r"\[1\] <ground> tokens for \[3\] regions"),
        ({"region_references": torch.tensor([[2]])}, "regions beyond the 1 of region_masks"),
        ({"region_references": torch.tensor([[0], [0]])}, r"region_references must have shape \(1, num_ref"),
        ({"region_references": torch.tensor([[0]]), "region_valid": torch.zeros(1, 1)}, "name padded regions"),
        ({"region_valid": torch.ones(3, 1)}, r"region_valid must have shape \(1, 1\)"),
        ({"inputs_embeds": torch.zeros(1, 29, 48)}, "exactly one of input_ids and inputs_embeds"),
        ({"input_ids": None}, "exactly one of input_ids and inputs_embeds"),
        ({"mm_encoder_outputs": {"video": 1}}, "either pixels or mm_encoder_outputs"),
    ],
)
def test_wrong_shapes_raise(tiny_model, tiny_inputs, change, message):
    inputs = {**tiny_inputs([2, "text", "ground"], regions=1), **change}
    inputs.setdefault("region_valid", None)
    if "region_masks" in change:
        inputs["region_valid"] = None
    with pytest.raises(ValueError, match=message):
        tiny_model(**inputs)


def test_not_a_number_in_the_pixels_stays_visible(tiny_model, tiny_inputs):
    inputs = tiny_inputs([1, "text"])
    inputs["pixel_values_videos"][0, 0, 0, 0, 0] = torch.nan
    assert tiny_model(**inputs).logits[0, -1].isnan().any()


def test_base_model_gives_the_same_states(tiny_model, tiny_inputs):
    assert isinstance(tiny_model.base_model, IDE3DModel)
    inputs = tiny_inputs([2, "text"])
    assert torch.equal(tiny_model.model(**inputs).last_hidden_state, tiny_model(**inputs).last_hidden_state)


# Inputs that look right


def test_soft_masks_are_refused(tiny_model, tiny_inputs):
    inputs = tiny_inputs([2, "text", "ground", "text"], [1, "text", "ground"], regions=1)
    for name in ("video_frame_mask", "region_masks", "attention_mask"):
        with pytest.raises(ValueError, match=f"{name} must be bool, got torch.float32"):
            tiny_model(**{**inputs, name: inputs[name].float() * 0.5})
        with torch.no_grad():
            hard, same = tiny_model(**inputs).logits, tiny_model(**{**inputs, name: inputs[name].float()}).logits
        assert torch.equal(hard, same)
    with pytest.raises(ValueError, match="region_valid must be bool"):
        tiny_model(**{**inputs, "region_valid": torch.full(inputs["region_masks"].shape[:2], 0.3)})


@pytest.mark.parametrize("change", [lambda mask: mask[:, 1:], lambda mask: mask[:, [0, *range(mask.shape[1])]]])
def test_attention_mask_of_another_length_is_refused(tiny_model, tiny_inputs, change):
    inputs = tiny_inputs([1, "text"])
    inputs["attention_mask"] = change(inputs["attention_mask"])
    with pytest.raises(ValueError, match=r"attention_mask must have shape \(1, \d+\), one number for each token"):
        tiny_model(**inputs)


@pytest.mark.parametrize("pixels", [torch.uint8, torch.int64])
def test_pixels_that_are_not_normalised_are_refused(tiny_model, tiny_inputs, pixels):
    inputs = tiny_inputs([1, "text"])
    inputs["pixel_values_videos"] = (inputs["pixel_values_videos"] * 50).to(pixels)
    with pytest.raises(TypeError, match=f"pixel_values_videos must be a tensor of normalised floats, got {pixels}"):
        tiny_model(**inputs)


def test_pixels_of_double_precision_are_cast_aloud(tiny_model, tiny_inputs):
    inputs = tiny_inputs([1, "text"])
    double = {**inputs, "pixel_values_videos": inputs["pixel_values_videos"].double()}
    with torch.no_grad(), pytest.warns(UserWarning, match="float64 and are cast to torch.float32"):
        assert torch.equal(tiny_model(**double).logits, tiny_model(**inputs).logits)
    double["pixel_values_videos"][0, 0, 0, 0, 0] = 1e300
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="numbers beyond torch.float32"):
        tiny_model(**double)


@pytest.mark.parametrize("name", ["depth", "pixel_value_videos", "region_mask", "output_hidden_state"])
def test_unknown_arguments_are_named(tiny_model, tiny_inputs, name):
    inputs = tiny_inputs([1, "text", "ground"], regions=1)
    for call in (tiny_model, tiny_model.ground, tiny_model.model):
        with pytest.raises(TypeError, match=f"does not take the arguments .'{name}'."):
            call(**inputs, **{name: torch.zeros(1)})


def test_arguments_of_transformers_and_of_an_own_loss_are_taken(tiny_model, tiny_inputs):
    inputs = tiny_inputs([1, "text"])
    labels = inputs["input_ids"].clone()
    known = {"num_items_in_batch": torch.tensor(5), "output_attentions": False, "cu_seq_lens_q": None, "other": None}
    assert tiny_model(**inputs, labels=labels, **known).loss.isfinite()
    tiny_model.loss_function = lambda logits, labels, vocab_size, scale=1.0, **kwargs: logits.sum() * 0 + scale
    assert tiny_model(**inputs, labels=labels, scale=3.0).loss == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits_to_keep": -1}, "logits_to_keep must be at least 0"),
        ({"region_references": torch.tensor([[-5]])}, "got numbers below -1"),
        ({"region_references": torch.tensor([[0.0]])}, "region_references must be integers"),
    ],
)
def test_numbers_out_of_range_are_refused(tiny_model, tiny_inputs, change, message):
    with pytest.raises(ValueError, match=message):
        tiny_model(**tiny_inputs([1, "text", "ground"], regions=1), **change)


@pytest.mark.parametrize("token", [-1, 120, 10**9])
def test_tokens_outside_of_the_vocabulary_are_refused(tiny_model, tiny_inputs, token):
    inputs = tiny_inputs(["text"])
    inputs["input_ids"][0, 0] = token
    with pytest.raises(ValueError, match=r"input_ids must lie in \[0, 120\)"):
        tiny_model(**inputs)
    with pytest.raises(ValueError, match="input_ids must be integers"):
        tiny_model(input_ids=torch.zeros(1, 3))
