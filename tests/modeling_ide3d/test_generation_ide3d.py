"""`generate`: greedy, sampling and beams, caches, regions, continuation, chunks, compiled decoding."""

import pytest
import torch
from transformers import ContinuousBatchingConfig, GenerationConfig, StaticCache
from transformers.generation import GenerateBeamDecoderOnlyOutput, GenerateDecoderOnlyOutput

NEW_TOKENS = 6
# A placeholder in an answer would ask for another video; nobody samples from an untrained model in earnest.
PLACEHOLDERS = [100, 101]
GROUND = 102
MIXED = [[2, "text", "ground", "text"], ["text", "image", 3, "text", "ground", "text", 1], ["text", "text"]]


@pytest.fixture
def generate(tiny_model):
    """`generate(inputs, **kwargs)` gives the new tokens, or the whole output where a dict was asked for."""

    def run(inputs, **kwargs):
        settings = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "suppress_tokens": PLACEHOLDERS, **kwargs}
        output = tiny_model.generate(**inputs, **settings)
        return output if settings.get("return_dict_in_generate") else output[:, inputs["input_ids"].shape[1] :]

    return run


@pytest.fixture
def mixed(tiny_inputs):
    """Several videos of different length, an image, regions, and a text without either, in one batch."""
    return tiny_inputs(*MIXED, regions=[1, 1, 0])


def say(model, token_id: int, at_length: int):
    """Make `model` emit `token_id` after `at_length` tokens, whatever it would have said."""

    def processor(input_ids, scores):
        if input_ids.shape[1] == at_length:
            scores = torch.full_like(scores, -torch.inf)
            scores[:, token_id] = 0
        return scores

    return [processor]


def without_regions(inputs):
    """The same batch without regions, and without the tokens that point at them."""
    inputs = {key: value for key, value in inputs.items() if not key.startswith("region")}
    return {**inputs, "input_ids": inputs["input_ids"].masked_fill(inputs["input_ids"] == GROUND, 7)}


# Modes


def test_greedy_with_dict_output(generate, mixed, tiny_model):
    output = generate(
        mixed, return_dict_in_generate=True, output_scores=True, output_logits=True, output_hidden_states=True
    )
    assert isinstance(output, GenerateDecoderOnlyOutput)
    assert len(output.scores) == len(output.hidden_states) == NEW_TOKENS
    length, layers = mixed["input_ids"].shape[1], tiny_model.config.text_config.num_hidden_layers
    assert output.sequences.shape == (3, length + NEW_TOKENS)
    assert output.hidden_states[0][layers].shape == (3, length, 48)
    assert output.hidden_states[1][layers].shape == (3, 1, 48)
    assert torch.equal(output.sequences[:, length], output.scores[0].argmax(-1))
    with torch.no_grad():
        torch.testing.assert_close(output.logits[0], tiny_model(**mixed).logits[:, -1], atol=2e-5, rtol=1e-4)


def test_greedy_attentions_in_eager_mode(generate, mixed, tiny_model):
    tiny_model.set_attn_implementation("eager")
    output = generate(mixed, return_dict_in_generate=True, output_attentions=True)
    length = mixed["input_ids"].shape[1]
    assert output.attentions[0][0].shape == (3, 4, length, length)
    assert output.attentions[1][0].shape == (3, 4, 1, length + 1)


def test_greedy_is_the_argmax_of_the_forward_pass(generate, mixed, tiny_model):
    """Also: every sample of the batch is answered as if it were alone with its own video."""
    answers = generate(mixed)
    settled = dict(mixed)
    for step in range(NEW_TOKENS):
        with torch.no_grad():
            logits = tiny_model(**settled).logits[:, -1]
        logits[:, PLACEHOLDERS] = -torch.inf
        token = logits.argmax(-1, keepdim=True)
        assert torch.equal(token[:, 0], answers[:, step])
        settled["input_ids"] = torch.cat([settled["input_ids"], token], dim=1)
        settled["attention_mask"] = torch.cat([settled["attention_mask"], torch.ones_like(token)], dim=1)


def test_answers_do_not_depend_on_the_neighbours(generate, tiny_inputs):
    batch = tiny_inputs([3, "text"], [1, "text"])
    answers = generate(batch)
    for index in range(2):
        own = batch["attention_mask"][index].bool()
        single = {
            "input_ids": batch["input_ids"][index : index + 1, own],
            "pixel_values_videos": batch["pixel_values_videos"][index : index + 1],
            "video_frame_mask": batch["video_frame_mask"][index : index + 1],
        }
        assert torch.equal(generate(single)[0], answers[index])


def test_sampling_with_several_answers_each(generate, mixed):
    torch.manual_seed(0)
    output = generate(mixed, do_sample=True, num_return_sequences=4, return_dict_in_generate=True, output_logits=True)
    length = mixed["input_ids"].shape[1]
    assert output.sequences.shape == (12, length + NEW_TOKENS)
    assert torch.equal(output.sequences[:, :length], mixed["input_ids"].repeat_interleave(4, dim=0))
    assert len(output.sequences[:4].unique(dim=0)) > 1
    # every copy of a sample starts from that sample's own logits
    greedy = generate(mixed, return_dict_in_generate=True, output_logits=True).logits[0]
    torch.testing.assert_close(output.logits[0], greedy.repeat_interleave(4, dim=0), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("regions", [False, True])
def test_beams_with_several_answers_each(generate, mixed, regions, tiny_model):
    inputs = mixed if regions else without_regions(mixed)
    output = generate(inputs, num_beams=3, num_return_sequences=2, return_dict_in_generate=True, output_scores=True)
    assert isinstance(output, GenerateBeamDecoderOnlyOutput)
    length = inputs["input_ids"].shape[1]
    answers = output.sequences[:, length:]
    # The score of a beam is the mean log probability of its words, given its sample's own video and regions.
    for row in range(6):
        single = {key: value for key, value in inputs.items() if key in ("region_masks", "region_valid")}
        repeated = {
            **{key: value for key, value in inputs.items() if key not in single},
            **single,
            "input_ids": torch.cat([inputs["input_ids"], answers[row].expand(3, -1)], dim=1),
            "attention_mask": torch.cat([inputs["attention_mask"], torch.ones(3, NEW_TOKENS, dtype=torch.long)], 1),
        }
        with torch.no_grad():
            logits = tiny_model(**repeated).logits[row // 2, -NEW_TOKENS - 1 : -1]
        scores = logits.log_softmax(-1).gather(1, answers[row].unsqueeze(1)).mean()
        torch.testing.assert_close(output.sequences_scores[row], scores, atol=1e-4, rtol=1e-4)


def test_beam_search_finds_at_least_the_greedy_answer(generate, tiny_inputs):
    inputs = tiny_inputs([2, "text"])
    wide = generate(inputs, num_beams=8, return_dict_in_generate=True, output_scores=True).sequences_scores
    narrow = generate(inputs, num_beams=2, return_dict_in_generate=True, output_scores=True).sequences_scores
    assert (wide >= narrow - 1e-5).all()


def test_precomputed_tokens_serve_one_question_after_the_other(generate, tiny_inputs, tiny_model):
    inputs = tiny_inputs([2, "text"], ["text", 1])
    pixels = {key: inputs.pop(key) for key in ("pixel_values_videos", "video_frame_mask")}
    cached = {"mm_encoder_outputs": {"video": tiny_model.get_video_features(**pixels)}}
    for settings in ({"num_beams": 3}, {}, {"num_beams": 2, "num_return_sequences": 2}, {"use_cache": False}):
        expected = generate({**inputs, **pixels}, **settings)
        assert torch.equal(generate({**inputs, **cached}, **settings), expected)
    assert len(cached["mm_encoder_outputs"]["video"].pooler_output) == 2


# Caches


@pytest.mark.parametrize("beams", [1, 3])
def test_without_a_cache_the_answer_is_the_same(generate, mixed, beams):
    assert torch.equal(generate(mixed, num_beams=beams, use_cache=False), generate(mixed, num_beams=beams))


@pytest.mark.parametrize("regions", [0, 1, 2])
def test_an_emitted_ground_token_is_a_word_and_no_reference(generate, tiny_inputs, tiny_model, regions):
    inputs = tiny_inputs([2, "text", *["ground"] * regions, "text"], regions=regions)
    length = inputs["input_ids"].shape[1]
    settings = {"logits_processor": say(tiny_model, GROUND, length + 1)}
    cached = generate(inputs, **settings)
    assert cached[0, 1] == GROUND
    assert torch.equal(generate(inputs, use_cache=False, **settings), cached)
    assert torch.equal(generate(inputs, cache_implementation="static", **settings), cached)


@pytest.mark.parametrize("implementation", ["static", "dynamic"])
def test_cache_implementations_agree(generate, mixed, implementation):
    assert torch.equal(generate(mixed, cache_implementation=implementation), generate(mixed))


@torch.no_grad()
def test_the_old_name_of_the_cache_is_understood(tiny_model, tiny_inputs):
    ids = tiny_inputs(["text", "text"])["input_ids"]
    for model in (tiny_model, tiny_model.model):
        cache = model(input_ids=ids[:, :4], use_cache=True).cache
        with pytest.warns(FutureWarning, match="`past_key_values` is deprecated"):
            outputs = model(input_ids=ids[:, 4:], past_key_values=cache)
        expected = model(input_ids=ids).last_hidden_state[:, 4:]
        torch.testing.assert_close(outputs.last_hidden_state, expected, atol=2e-5, rtol=1e-4)


def test_static_cache_object(generate, mixed, tiny_model):
    length = mixed["input_ids"].shape[1]
    cache = StaticCache(config=tiny_model.config.get_text_config(), max_cache_len=length + NEW_TOKENS)
    assert torch.equal(generate(mixed, cache=cache), generate(mixed))


def test_vision_runs_once_and_only_once(generate, mixed, tiny_model):
    calls = []
    tiny_model.get_encoder("video").register_forward_hook(lambda *_: calls.append(1))
    generate(mixed, num_beams=2)
    assert len(calls) == 2  # the videos and the images of the batch


def test_generation_continues_from_a_cache(generate, tiny_inputs):
    inputs = tiny_inputs([2, "text", "ground", "text"], ["text", 1, "ground"], regions=1)
    whole = generate(inputs, max_new_tokens=6, return_dict_in_generate=True).sequences
    first = generate(inputs, max_new_tokens=3, return_dict_in_generate=True)
    new = torch.ones(2, 3, dtype=torch.long)
    rest = generate(
        {
            "input_ids": first.sequences,
            "attention_mask": torch.cat([inputs["attention_mask"], new], dim=1),
            "cache": first.cache,
        },
        max_new_tokens=3,
        return_dict_in_generate=True,
    )
    assert torch.equal(rest.sequences, whole)


def test_a_second_turn_of_text_on_a_cached_video(generate, tiny_inputs):
    inputs = tiny_inputs([2, "text"])
    first = generate(inputs, return_dict_in_generate=True)
    question = torch.tensor([[7, 8, 9]])
    chat = torch.cat([first.sequences, question], dim=1)
    mask = torch.ones_like(chat)  # without it, an emitted padding token would count as padding
    cached = generate({"input_ids": chat, "attention_mask": mask, "cache": first.cache})
    fresh = generate({**inputs, "input_ids": chat, "attention_mask": mask})
    assert torch.equal(cached, fresh)


def test_regions_on_a_filled_cache_raise(generate, tiny_inputs):
    inputs = tiny_inputs([2, "text"], regions=0)
    first = generate(without_regions(inputs), return_dict_in_generate=True)
    chat = torch.cat([first.sequences, torch.tensor([[7, GROUND, 9]])], dim=1)
    masks = torch.ones(1, 1, 2, 3, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="region_masks were given with a filled cache"):
        generate({"input_ids": chat, "cache": first.cache, "region_masks": masks})


# Inputs


def test_steps_after_the_prompt_get_neither_pixels_nor_regions(mixed, tiny_model):
    length = mixed["input_ids"].shape[1]
    one_more = torch.cat([mixed["input_ids"], torch.full((3, 1), 5)], dim=1)
    passed = {**mixed, "region_references": torch.zeros(3, 1, dtype=torch.long), "use_cache": True}
    passed.pop("input_ids")
    first = tiny_model.prepare_inputs_for_generation(one_more[:, :length], is_first_iteration=True, **passed)
    later = tiny_model.prepare_inputs_for_generation(
        one_more, next_sequence_length=1, is_first_iteration=False, **passed
    )
    spatial = {"region_masks", "region_valid", "region_references"}
    assert spatial <= first.keys()
    assert not (spatial | {"pixel_values", "pixel_values_videos"}) & later.keys()
    assert later["input_ids"].tolist() == [[5]] * 3
    # without a cache the prompt is read again at every step, and so are its regions
    uncached = tiny_model.prepare_inputs_for_generation(
        one_more, is_first_iteration=False, **{**passed, "use_cache": False}
    )
    assert spatial <= uncached.keys()


def test_regions_change_the_answer(generate, tiny_inputs):
    inputs = tiny_inputs([2, "text", "ground"], regions=1)
    settings = {"return_dict_in_generate": True, "output_logits": True}
    answer = generate(inputs, **settings).logits
    inputs["region_masks"] = ~inputs["region_masks"]
    other = generate(inputs, **settings).logits
    assert not torch.allclose(answer[0], other[0], atol=1e-3)


def test_explicit_references_are_the_default_ones(generate, tiny_inputs):
    inputs = tiny_inputs([2, "ground", "text", "ground"], ["ground", 1], regions=[2, 1])
    references = torch.tensor([[0, 1], [0, -1]])
    for settings in ({}, {"num_beams": 2}, {"use_cache": False}):
        assert torch.equal(
            generate({**inputs, "region_references": references}, **settings), generate(inputs, **settings)
        )


@pytest.mark.parametrize("settings", [{}, {"num_beams": 2}])
def test_text_can_be_given_as_embeddings(generate, tiny_inputs, tiny_model, settings):
    inputs = tiny_inputs(["text"], ["text", "text"])
    embeds = tiny_model.get_input_embeddings()(inputs["input_ids"])
    answer = tiny_model.generate(
        inputs_embeds=embeds,
        attention_mask=inputs["attention_mask"],
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        suppress_tokens=PLACEHOLDERS,
        **settings,
    )
    assert torch.equal(answer, generate(inputs, **settings))


def test_token_types_of_a_processor_are_accepted(generate, tiny_inputs):
    inputs = tiny_inputs([2, "text"])
    types = (inputs["input_ids"] == 101).long() * 2
    assert torch.equal(generate({**inputs, "mm_token_type_ids": types}), generate(inputs))


@torch.no_grad()
def test_own_positions_reach_the_language_model(tiny_inputs, tiny_model):
    inputs = tiny_inputs([1, "text"])
    logits = tiny_model(**inputs).logits
    positions = torch.arange(inputs["input_ids"].shape[1]).unsqueeze(0)
    torch.testing.assert_close(tiny_model(**inputs, position_ids=positions).logits, logits)
    assert not torch.allclose(tiny_model(**inputs, position_ids=2 * positions).logits, logits, atol=1e-3)


@pytest.mark.parametrize("name", ["depth", "camera_to_world", "pixel_value_videos"])
def test_arguments_that_nobody_reads_raise(generate, tiny_inputs, name):
    inputs = tiny_inputs([1, "text"])
    with pytest.raises(ValueError, match=name):
        generate({**inputs, name: torch.zeros(1)})


def test_placeholders_without_pixels_raise(generate, tiny_inputs):
    inputs = tiny_inputs([1, "text"])
    with pytest.raises(ValueError, match="12 video tokens, the videos give 0"):
        generate({"input_ids": inputs["input_ids"]})


# Long prompts and speed


@pytest.mark.parametrize("chunk", [5, 24, 1000])
def test_prefill_in_chunks(generate, mixed, chunk):
    inputs = without_regions(mixed)
    assert torch.equal(generate(inputs, prefill_chunk_size=chunk), generate(inputs))


def test_regions_with_prefill_in_chunks_raise(generate, mixed):
    with pytest.raises(ValueError, match="prefill_chunk_size"):
        generate(mixed, prefill_chunk_size=5)


def test_assisted_decoding_by_prompt_lookup(generate, tiny_inputs):
    inputs = tiny_inputs([2, "text", "ground", "text"], regions=1)
    assert torch.equal(generate(inputs, prompt_lookup_num_tokens=3), generate(inputs))


@pytest.mark.parametrize("parts", [[2, "text"], ["text"], ["image", "text", "ground", "text"]])
def test_assisted_decoding_by_a_smaller_model(generate, make_tiny_model, tiny_config, tiny_inputs, parts):
    inputs = tiny_inputs(parts, regions=parts.count("ground") or None)
    assistant = make_tiny_model(tiny_config(text={"num_hidden_layers": 1}), seed=1)
    seen = []
    assistant.model.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    assert torch.equal(generate(inputs, assistant_model=assistant), generate(inputs))
    # The assistant reads the visual tokens, not the embeddings of the placeholders.
    words = assistant.get_input_embeddings()(inputs["input_ids"])
    is_placeholder = (inputs["input_ids"] >= PLACEHOLDERS[0]) & (inputs["input_ids"] < 103)
    same = (seen[0] == words).all(-1)
    assert torch.equal(same, ~is_placeholder)


def test_an_assistant_of_another_width_raises(generate, make_tiny_model, tiny_config, tiny_inputs):
    assistant = make_tiny_model(tiny_config(text={"hidden_size": 64}))
    with pytest.raises(ValueError, match="48 wide, the language model takes 64.*assistant_model"):
        generate(tiny_inputs([1, "text"]), assistant_model=assistant)


@pytest.fixture
def answer_batch(tiny_model):
    """`answer_batch(texts)` gives the answers of continuous batching."""

    def run(texts):
        settings = GenerationConfig(max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=-1, pad_token_id=0)
        # Without sizes it takes a share of the free memory, gigabytes for a tiny model.
        settings.continuous_batching_config = ContinuousBatchingConfig(num_blocks=16, max_batch_tokens=64)
        outputs = tiny_model.generate_batch(texts, generation_config=settings)
        return [output.generated_tokens for output in outputs.values()]

    return run


def test_continuous_batching_of_texts(answer_batch, generate):
    texts = [[5, 6, 7, 8], [9, 10, 11], list(range(20, 60))]
    expected = [
        generate({"input_ids": torch.tensor([text])}, suppress_tokens=None, eos_token_id=-1)[0].tolist()
        for text in texts
    ]
    assert answer_batch(texts) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [([5, 101, 6], "Text 1 has placeholders"), ([5, 100], "Text 1 has placeholders"), ([5, GROUND, 6], "no region")],
)
def test_continuous_batching_takes_text_alone(answer_batch, text, message):
    with pytest.raises(ValueError, match=message):
        answer_batch([[5, 6], text])


@pytest.fixture
def compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("compiler")
def test_compiled_language_model_gives_the_same_answer(generate, mixed, tiny_model):
    expected = generate(mixed, cache_implementation="static")
    tiny_model.model.language_model.forward = torch.compile(tiny_model.model.language_model.forward, backend="eager")
    assert torch.equal(generate(mixed, cache_implementation="static"), expected)


@pytest.mark.usefixtures("compiler")
@torch.no_grad()
@pytest.mark.slow
def test_forward_compiles_to_one_graph_from_precomputed_features(tiny_model, tiny_inputs):
    compiled = torch.compile(tiny_model, backend="eager", fullgraph=True)
    text = tiny_inputs(["text"])
    torch.testing.assert_close(compiled(**text).logits, tiny_model(**text).logits)
    inputs = tiny_inputs([2, "text"])
    encoded = tiny_model.get_video_features(inputs.pop("pixel_values_videos"), inputs.pop("video_frame_mask"))
    expected = tiny_model(**inputs, mm_encoder_outputs={"video": encoded}).logits
    torch.testing.assert_close(compiled(**inputs, mm_encoder_outputs={"video": encoded}).logits, expected)


@pytest.fixture
def half_read(tiny_model, tiny_inputs):
    """A static cache that holds the first half of a text, the second half, and the logits of that."""
    ids = tiny_inputs(["text", "text"])["input_ids"]
    cache = StaticCache(config=tiny_model.config.get_text_config(), max_cache_len=16)
    with torch.no_grad():
        tiny_model(input_ids=ids[:, :4], cache=cache)
        return cache, ids[:, 4:], tiny_model(input_ids=ids).logits[:, 4:]


@pytest.mark.usefixtures("compiler")
@torch.no_grad()
def test_several_tokens_on_a_filled_static_cache_compile_to_one_graph(tiny_model, half_read):
    cache, rest, expected = half_read
    compiled = torch.compile(tiny_model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(input_ids=rest, cache=cache).logits, expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_placeholders_on_a_static_cache_are_an_answer_only_behind_a_text(tiny_model, half_read):
    """What a model wrote itself is read again after it; a text that starts with placeholders lacks its video."""
    cache, rest, _ = half_read
    answer = torch.full_like(rest, PLACEHOLDERS[1])
    assert tiny_model(input_ids=answer, cache=cache).logits.isfinite().all()
    cache.reset()
    with pytest.raises(ValueError, match="4 video tokens, the videos give 0"):
        tiny_model(input_ids=answer, cache=cache)


# What makes answers meaningless


@pytest.mark.parametrize(
    "settings", [{}, {"num_beams": 2}, {"do_sample": True}, {"num_return_sequences": 2, "do_sample": True}]
)
def test_scores_that_are_not_finite_are_refused_by_sample(tiny_model, tiny_inputs, settings):
    inputs = tiny_inputs([1, "text"], [1, "text"])
    inputs["pixel_values_videos"][1, 0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"scores of the next token are NaN or Inf for the samples \[1\]"):
        tiny_model.generate(**inputs, max_new_tokens=2, suppress_tokens=[100, 101], **settings)


def test_scores_that_are_repaired_on_request_are_taken(tiny_model, tiny_inputs):
    inputs = tiny_inputs([1, "text"])
    inputs["pixel_values_videos"][0, 0, 0, 0, 0] = float("nan")
    settings = {"max_new_tokens": 2, "remove_invalid_values": True, "suppress_tokens": [100, 101]}
    assert tiny_model.generate(**inputs, **settings).shape[0] == 1


def test_texts_padded_on_the_right_are_refused(tiny_model, tiny_inputs):
    inputs = tiny_inputs(["text", "text", "text"], ["text", "text", "text"])
    inputs["attention_mask"][1, -1] = 0
    with pytest.raises(ValueError, match=r"samples \[1\] are padded on the right.*padding_side"):
        tiny_model.generate(**inputs, max_new_tokens=1)


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@torch.no_grad()
def test_checks_of_frames_leave_one_graph(tiny_model, tiny_inputs, dtype):
    frames = tiny_inputs([2, "text"])["pixel_values_videos"].to(dtype)
    compiled = torch.compile(tiny_model.get_video_features, backend="eager", fullgraph=True)
    expected = tiny_model.get_video_features(frames.float()).pooler_output
    torch.testing.assert_close(compiled(frames).pooler_output, expected)
