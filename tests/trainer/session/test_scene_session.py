"""A session answers as the model does when each question is asked alone, in less memory than it was given."""

import gc

import pytest
import torch
from scene_models import SCENE_QUESTIONS as QUESTIONS
from scene_models import build_scene_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from trainer.session import SceneSession
from trainer.session.shared_prefix import PackedQuestions, PrefixQuestions, RepeatedPrefix

NEW_TOKENS = 6
# Known to Transformers by name only, as FlashAttention is: the session must not hand it a mask of pairs.
AttentionInterface.register("custom_attention", sdpa_attention_forward)
AttentionMaskInterface.register("custom_attention", sdpa_mask)


def chat_of(question, answer=None):
    chat = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
    return chat if answer is None else [*chat, {"role": "assistant", "content": answer}]


def prepare(model, processor, frames, chat):
    text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=len(chat) == 1)
    inputs = processor(text=[text], videos=[frames], return_tensors="pt")
    inputs["pixel_values_videos"] = inputs["pixel_values_videos"].to(model.dtype)
    return inputs


def ask_alone(model, processor, frames, question, **kwargs):
    """Tokens and logits of one question, from scratch."""
    inputs = prepare(model, processor, frames, chat_of(question))
    output = model.generate(
        **inputs,
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
        **kwargs,
    )
    return output.sequences[0, inputs["input_ids"].shape[1] :].tolist(), torch.cat(output.logits).float()


def make_regions(count, seed=0):
    return torch.rand(count, 3, 3, 3, generator=torch.Generator().manual_seed(seed)) < 0.4


def assert_same(answers, model, processor, frames, questions=QUESTIONS, atol=1e-4):
    assert len(answers) == len(questions)
    for question, answer in zip(questions, answers, strict=True):
        tokens, logits = ask_alone(model, processor, frames, question)
        assert answer.tokens == tokens
        torch.testing.assert_close(answer.logits, logits, atol=atol, rtol=0)


@pytest.mark.parametrize(
    ("attention", "strategy"),
    [("sdpa", PrefixQuestions), ("eager", PackedQuestions), ("custom_attention", RepeatedPrefix)],
)
def test_every_question_gets_the_tokens_of_asking_it_alone(scene_model, processor, frames, attention, strategy):
    scene_model.set_attn_implementation({"text_config": attention})
    session = SceneSession(scene_model, processor, frames)
    assert isinstance(session.questions, strategy)
    answers = session.answer(QUESTIONS, max_new_tokens=NEW_TOKENS, output_logits=True)
    assert len({tuple(answer.tokens) for answer in answers}) > 1
    assert_same(answers, scene_model, processor, frames)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_session_serves_again_and_in_any_batch(scene_model, processor, frames, batch_size):
    session = SceneSession(scene_model, processor, frames)
    session.answer(QUESTIONS, max_new_tokens=2 * NEW_TOKENS)
    answers = session.answer(QUESTIONS, max_new_tokens=NEW_TOKENS, batch_size=batch_size, output_logits=True)
    assert_same(answers, scene_model, processor, frames)
    assert session.ask(QUESTIONS, max_new_tokens=NEW_TOKENS) == [answer.text for answer in answers]
    assert session.ask([]) == []


@pytest.mark.parametrize("attention", ["sdpa", "custom_attention"])
def test_answers_end_where_the_model_ends_them(scene_model, processor, frames, attention):
    """An end token that one question meets first leaves the others alone."""
    scene_model.set_attn_implementation({"text_config": attention})
    alone = [ask_alone(scene_model, processor, frames, question)[0] for question in QUESTIONS]
    others = {token for tokens in alone[1:] for token in tokens[:2]}
    end = next(token for token in alone[0] if token not in others)
    scene_model.generation_config.eos_token_id = [end]
    answers = SceneSession(scene_model, processor, frames).answer(
        QUESTIONS, max_new_tokens=NEW_TOKENS, output_logits=True
    )
    assert answers[0].tokens[-1] == end and max(len(answer.tokens) for answer in answers) > len(answers[0].tokens)
    assert_same(answers, scene_model, processor, frames)


@pytest.mark.filterwarnings("ignore:The following device_map keys")
def test_a_language_model_on_disk_answers(scene_model, processor, frames, tmp_path):
    scene_model.save_pretrained(tmp_path / "model")
    parts = ("model.vision_tower", "model.multi_modal_projector", "model.image_newline", "lm_head", "grounding_head")
    device_map = {**dict.fromkeys(parts, "cpu"), "model.language_model": "disk"}
    offloaded = type(scene_model).from_pretrained(
        tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "offload"
    )
    expected = SceneSession(scene_model, processor, frames).ask(QUESTIONS, max_new_tokens=NEW_TOKENS)
    assert SceneSession(offloaded, processor, frames).ask(QUESTIONS, max_new_tokens=NEW_TOKENS) == expected


def test_sliding_windows_take_the_repeated_prefix(processor, frames):
    model = build_scene_model(
        processor, use_sliding_window=True, sliding_window=16, max_window_layers=1, attn_implementation="sdpa"
    )
    session = SceneSession(model, processor, frames)
    assert isinstance(session.questions, RepeatedPrefix)
    answers = session.answer(QUESTIONS, max_new_tokens=NEW_TOKENS, output_logits=True)
    assert_same(answers, model, processor, frames)


@pytest.mark.parametrize("attention", ["sdpa", "custom_attention"])
def test_grounding_scores_are_those_of_the_model(scene_model, processor, frames, attention):
    scene_model.set_attn_implementation({"text_config": attention})
    regions = make_regions(4)
    regions[2] = False  # not visible
    descriptions = ["The red chair.", "The lamp beside the table that is next to the door."]
    template = "Find it. {description}"
    scores = SceneSession(scene_model, processor, frames).ground(descriptions, regions, template=template)
    assert scores.shape == (2, 5)
    for row, description in zip(scores, descriptions, strict=True):
        inputs = prepare(scene_model, processor, frames, chat_of(f"Find it. {description}", "<ground>"))
        expected = scene_model.ground(**inputs, region_masks=regions[None])[0]
        torch.testing.assert_close(row, expected, atol=1e-5, rtol=0)


def test_braces_of_a_template_and_of_a_description_are_text(scene_model, processor, frames):
    session, regions = SceneSession(scene_model, processor, frames), make_regions(3)
    template, description = 'Answer as {"box": [0]} {}. {description}', "The {red} chair {description}."
    scores = session.ground([description], regions, template=template)
    whole = chat_of('Answer as {"box": [0]} {}. The {red} chair {description}.')
    torch.testing.assert_close(scores, session.ground([whole], regions), atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="`template` must hold {description}.* got 'Find it.'"):
        session.ground([description], regions, template="Find it.")


def test_regions_are_described_as_the_model_describes_them(scene_model, processor, frames):
    regions = make_regions(3)
    regions[1] = False  # falls back to the mean of the video
    session = SceneSession(scene_model, processor, frames)
    question = "What is <ground>?"
    words = session.describe(regions, question=question, max_new_tokens=NEW_TOKENS)
    for word, region in zip(words, regions, strict=True):
        tokens, _ = ask_alone(scene_model, processor, frames, question, region_masks=region[None, None])
        assert word == processor.decode(tokens, skip_special_tokens=True)
    two = "Which is closer, <ground> or <ground>?"
    answer = session.answer([two], [regions[[2, 0]]], max_new_tokens=NEW_TOKENS, output_logits=True)[0]
    tokens, logits = ask_alone(scene_model, processor, frames, two, region_masks=regions[None, [2, 0]])
    assert answer.tokens == tokens
    torch.testing.assert_close(answer.logits, logits, atol=1e-4, rtol=0)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT reads it
def test_low_rank_adapters_count(scene_model, processor, frames):
    peft = pytest.importorskip("peft")
    plain = SceneSession(scene_model, processor, frames).answer(QUESTIONS, max_new_tokens=2, output_logits=True)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(scene_model, config).eval()
    answers = SceneSession(adapted, processor, frames).answer(QUESTIONS, max_new_tokens=NEW_TOKENS, output_logits=True)
    assert_same(answers, adapted, processor, frames)
    assert (answers[0].logits[0] - plain[0].logits[0]).abs().max() > 1e-2


def test_half_precision_answers(scene_model, processor, frames):
    model = scene_model.to(torch.bfloat16)
    answers = SceneSession(model, processor, frames).answer(QUESTIONS, max_new_tokens=2, output_logits=True)
    for question, answer in zip(QUESTIONS, answers, strict=True):
        _, logits = ask_alone(model, processor, frames, question)
        torch.testing.assert_close(answer.logits[0], logits[0], atol=0.15, rtol=0.05)


class PeakMemory(TorchDispatchMode):
    """The most bytes that tensors made inside hold at one time."""

    def __init__(self):
        super().__init__()
        self.live = WeakIdKeyDictionary()
        self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.live[leaf.untyped_storage()] = leaf.untyped_storage().nbytes()
        self.peak = max(self.peak, sum(self.live.values()))
        return result


@pytest.mark.parametrize(
    ("attention", "dtype"),
    [
        ("sdpa", None),
        pytest.param("sdpa", torch.bfloat16, marks=pytest.mark.slow),
        ("eager", None),
        pytest.param("custom_attention", None, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("factor", [1.05, pytest.param(3, marks=pytest.mark.slow)])
def test_memory_stays_within_what_was_given(scene_model, processor, frames, attention, dtype, factor):
    scene_model.set_attn_implementation({"text_config": attention})
    with pytest.raises(ValueError, match="The scene takes .* MB"):
        SceneSession(scene_model, processor, frames, max_memory=1000)
    least = SceneSession(scene_model, processor, frames).memory
    budget = int(factor * max(least.smallest, least.scene + least.questions([60], NEW_TOKENS)))
    questions = QUESTIONS * (80 if attention == "sdpa" else 8)  # a question behind a shared prefix takes little
    whole = SceneSession(scene_model, processor, frames, vision_dtype=dtype)
    expected = whole.ask(questions, max_new_tokens=NEW_TOKENS)
    del whole
    gc.collect()
    with PeakMemory() as memory:
        session = SceneSession(scene_model, processor, frames, max_memory=budget, vision_dtype=dtype)
        groups = len(session._groups([session._tokenize(question) for question in questions], NEW_TOKENS, None))
        answers = session.ask(questions, max_new_tokens=NEW_TOKENS)
    assert answers == expected
    assert groups > 1
    assert 0.1 * budget < memory.peak <= budget


def test_a_question_beyond_the_context_is_refused(scene_model, processor, frames):
    session = SceneSession(scene_model, processor, frames)
    scene_model.config.text_config.max_position_embeddings = session.prefix_ids.shape[1] + 30
    session.ask(["Where is the ball?"], max_new_tokens=1)
    with pytest.raises(ValueError, match="context of the model holds"):
        session.ask(["Where is the ball? " * 30], max_new_tokens=1)


def test_requests_that_cannot_be_answered_are_refused(scene_model, processor, frames):
    session = SceneSession(scene_model, processor, frames)
    with pytest.raises(ValueError, match="exactly one <video>"):
        session.ask(["What is in <video>?"])
    with pytest.raises(ValueError, match="share what stands before the video"):
        session.ask([[{"role": "system", "content": "Be short."}, *chat_of("What?")]])
    with pytest.raises(ValueError, match="0 <ground> tokens for 1 regions"):
        session.ask(["What?"], [make_regions(1)])
    with pytest.raises(ValueError, match="one entry per question, 1, got 2"):
        session.ask(["What?"], [None, None])
    with pytest.raises(ValueError, match="`max_new_tokens` must be an integer of at least 1"):
        session.ask(["What?"], max_new_tokens=0)
    with pytest.raises(ValueError, match="`batch_size` must be an integer of at least 1"):
        session.ask(["What?"], batch_size=0)
    with pytest.raises(ValueError, match="Description 0 holds a <ground>"):
        session.ground(["The chair beside <ground>."], make_regions(2))
    with pytest.raises(ValueError, match="region_masks must have shape"):
        session.ground(["The chair."], torch.ones(2, 4, 3, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="training mode"):
        SceneSession(scene_model.train(), processor, frames)


def test_a_question_needs_the_regions_it_points_at_and_a_search_before_it_none(scene_model, processor, frames):
    session, two = SceneSession(scene_model, processor, frames), "Which is closer, <ground> or <ground>?"
    for question, regions in ((two, make_regions(1)), ("What is <ground>?", None)):
        with pytest.raises(ValueError, match="Question 1 points at more regions than the [01] given"):
            session.ask([QUESTIONS[0], question], [None, regions], max_new_tokens=2)
        given = {} if regions is None else {"region_masks": regions[None]}
        with pytest.raises(ValueError, match="no region is given for"):
            ask_alone(scene_model, processor, frames, question, **given)
    dialogue = [*chat_of("Find the chair.", "It is <ground>."), {"role": "user", "content": QUESTIONS[2]}]
    (answer,) = session.answer([dialogue], max_new_tokens=NEW_TOKENS)
    text = processor.apply_chat_template(dialogue, tokenize=False, add_generation_prompt=True)
    inputs = processor(text=[text], videos=[frames], return_tensors="pt")
    tokens = scene_model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
    assert answer.tokens == tokens[0, inputs["input_ids"].shape[1] :].tolist()


def test_a_system_prompt_belongs_to_the_scene(scene_model, processor, frames):
    chat = [{"role": "system", "content": "Be short."}, *chat_of(QUESTIONS[0])]
    session = SceneSession(scene_model, processor, frames, system="Be short.")
    assert session.ask([QUESTIONS[0]], max_new_tokens=4) == session.ask([chat], max_new_tokens=4)


def test_settings_that_greedy_decoding_leaves_out_are_named(scene_model, processor, frames, caplog):
    scene_model.generation_config.repetition_penalty = 1.2
    SceneSession(scene_model, processor, frames)
    assert "repetition_penalty" in caplog.text


@pytest.mark.parametrize(
    ("questions", "error", "message"),
    [
        ("What is this?", TypeError, "`{}` must be a list of texts or chats, got str 'What is this[?]'.*into a list"),
        (7, TypeError, "`{}` must be a list of texts or chats, got int 7"),
        (chat_of("What?")[0], TypeError, "`{}` must be a list of texts or chats, got dict"),
        ([7], TypeError, "Entry 0 of `{}` must be a text or a chat, a list of messages, got int 7"),
        (["What?", None], TypeError, "Entry 1 of `{}` must be a text or a chat.* got NoneType"),
        (chat_of("What?"), TypeError, "Entry 0 of `{}` must be .* got dict.* Put a single chat into a list"),
        (["What?", " \n"], ValueError, "Entry 1 of `{}` is empty"),
        ([""], ValueError, "Entry 0 of `{}` is empty"),
    ],
)
def test_what_is_no_list_of_questions_is_refused(scene_model, processor, frames, questions, error, message):
    session = SceneSession(scene_model, processor, frames)
    with pytest.raises(error, match=message.format("questions")):
        session.ask(questions)
    with pytest.raises(error, match=message.format("descriptions")):
        session.ground(questions, make_regions(2))


@pytest.mark.parametrize("count", [0, -1, 2.5, "3", float("nan"), True, None])
def test_counts_are_whole_numbers(scene_model, processor, frames, count):
    session, error = SceneSession(scene_model, processor, frames), ValueError if type(count) is int else TypeError
    with pytest.raises(error, match="`max_new_tokens` must be an integer of at least 1, got"):
        session.ask(["What?"], max_new_tokens=count)
    if count is not None:
        with pytest.raises(error, match="`batch_size` must be an integer of at least 1, got"):
            session.ask(["What?"], batch_size=count)


def test_soft_regions_are_refused(scene_model, processor, frames):
    session, soft = SceneSession(scene_model, processor, frames), make_regions(2).float() * 0.3
    for call in (session.describe, lambda regions: session.ground(["The chair."], regions)):
        with pytest.raises(ValueError, match="region_masks must be bool"):
            call(soft)


def test_scores_that_are_not_finite_are_refused_by_name(scene_model, processor, frames):
    session = SceneSession(scene_model, processor, frames)
    scene_model.lm_head.weight.data[5] = float("nan")
    with pytest.raises(ValueError, match=r"next token are NaN or Inf for \['Question 0', 'Question 1'\]"):
        session.ask(["What?", "Where?"])
    with pytest.raises(ValueError, match="next token are NaN or Inf for .*'b-2'"):
        session.ask(["What?", "Where?"], names=["a-1", "b-2"])
    scene_model.grounding_head.no_object.data[0] = float("inf")
    with pytest.raises(ValueError, match="scores of regions are NaN or Inf for .*Description 0"):
        session.ground(["The chair."], make_regions(2))
    with pytest.raises(ValueError, match="one entry per description, 1, got 2"):
        session.ground(["The chair."], make_regions(2), names=["a", "b"])


def test_vision_of_16_bits_rounds_tokens_and_leaves_questions_in_the_type_of_the_weights(
    scene_model, processor, frames
):
    exact, rounded = (
        SceneSession(scene_model, processor, frames, vision_dtype=dtype) for dtype in (None, torch.bfloat16)
    )
    expected, tokens = (session.encoded["video"].pooler_output[0] for session in (exact, rounded))
    error = (tokens - expected).norm() / expected.norm()
    assert tokens.dtype == torch.float32 and 1e-4 < error < 2e-2
    assert all(answer.logits.dtype == torch.float32 for answer in rounded.answer(QUESTIONS[:1], output_logits=True))


@pytest.mark.parametrize(("dtype", "error"), [("bfloat16", TypeError), (torch.float32, ValueError), (True, TypeError)])
def test_another_vision_dtype_is_refused(scene_model, processor, frames, dtype, error):
    with pytest.raises(error, match="`vision_dtype` must be"):
        SceneSession(scene_model, processor, frames, vision_dtype=dtype)


@pytest.mark.parametrize("of_weights", [torch.bfloat16, torch.float64])
def test_vision_dtype_beside_weights_that_are_not_float32_is_refused(scene_model, processor, frames, of_weights):
    with pytest.raises(ValueError, match=f"got torch.float16 and weights in {of_weights}"):
        SceneSession(scene_model.to(of_weights), processor, frames, vision_dtype=torch.float16)
