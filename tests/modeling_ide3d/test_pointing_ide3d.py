"""`generate` and questions that point at regions: each `<ground>` of the question needs a region, others need none."""

import pytest
import torch

END, VIDEO, GROUND, WORD = 2, 101, 102, 7
MESSAGE = "questions of the samples {} have a <ground> that no region is given for"


@pytest.fixture
def model(tiny_model):
    tiny_model.generation_config.eos_token_id = [END, 1]
    return tiny_model


@pytest.fixture
def generate(model):
    def run(**inputs):
        settings = {"max_new_tokens": 3, "do_sample": False, "suppress_tokens": [100, VIDEO, END]}
        return model.generate(**inputs, **settings, return_dict_in_generate=True)

    return run


@pytest.fixture
def scene(tiny_inputs):
    """Pixels and visual tokens of a video of two frames."""
    inputs = tiny_inputs([2])
    return inputs["pixel_values_videos"], inputs["input_ids"][0].tolist()


@pytest.fixture
def talk(scene):
    """`talk(*tokens, regions=n)` gives the inputs of a prompt behind the video; "g" is a `<ground>`, "." an end."""

    def build(text: str, regions: int | None = None, **inputs):
        ids = [{"g": GROUND, ".": END, "w": WORD}[letter] for letter in text]
        inputs = {"input_ids": torch.tensor([scene[1] + ids]), "pixel_values_videos": scene[0], **inputs}
        if regions is not None:
            inputs["region_masks"] = torch.ones(1, regions, 2, 3, 3, dtype=torch.bool)
        return inputs

    return build


@pytest.mark.parametrize("text, regions", [("wg", None), ("wgwg", 1), ("wg.w", None), ("wgwg.w", 1), ("w.wgwg.w", 1)])
def test_a_question_without_its_regions_is_refused(generate, talk, text, regions):
    with pytest.raises(ValueError, match=MESSAGE.format(r"\[0\]")):
        generate(**talk(text, regions))
    assert generate(**talk(text, text.count("g"))).sequences.shape[1] == 24 + len(text) + 3


def test_the_sample_of_a_batch_is_named(generate, tiny_inputs):
    inputs = tiny_inputs([2, "ground"], ["text", "ground", 2, "ground"], regions=1)
    inputs["attention_mask"] = (inputs["input_ids"] != 0).long()
    with pytest.raises(ValueError, match=MESSAGE.format(r"\[1\]")):
        generate(**inputs)
    inputs["region_valid"] = torch.zeros(2, 1, dtype=torch.bool)
    with pytest.raises(ValueError, match=MESSAGE.format(r"\[0, 1\]")):
        generate(**inputs)


@pytest.mark.parametrize("references, is_given", [([0], False), ([0, 0], True), ([0, -1], True), ([-1], False)])
def test_references_say_what_each_token_stands_for(generate, talk, references, is_given):
    inputs = talk("wgwg.w", 1, region_references=torch.tensor([references]))
    if is_given:
        generate(**inputs)
        return
    with pytest.raises(ValueError, match=MESSAGE.format(r"\[0\]")):
        generate(**inputs)


def test_references_need_regions(generate, talk):
    with pytest.raises(ValueError, match=MESSAGE.format(r"\[0\]")):
        generate(**talk("wg.w", region_references=torch.tensor([[0]])))
    generate(**talk("wg.w", region_references=torch.tensor([[-1]])))


@pytest.mark.parametrize("text", ["wg.wg.ww.w", "w.wg.w.w", "w.wg", "wg.w.w.wg"])
def test_earlier_turns_and_a_begun_answer_may_hold_searches(generate, talk, text):
    """What an assistant searched for, what a user pointed at before, and an answer that begins with a search."""
    inputs = talk(text)
    assert generate(**inputs).sequences.shape[1] == inputs["input_ids"].shape[1] + 3


def test_a_dialogue_points_behind_a_search(generate, talk):
    """By default the search of the earlier turn would take the region."""
    text = "w.wg.wg.w"
    with pytest.raises(ValueError, match="those of earlier turns included.*`region_references`.*-1 for none"):
        generate(**talk(text, 1))
    explicit = generate(**talk(text, 1, region_references=torch.tensor([[-1, 0]]))).sequences
    assert explicit.shape[1] == 24 + len(text) + 3


def test_an_answer_with_a_search_goes_on_from_a_cache(generate, talk):
    first = generate(**talk("wg.w", 1))
    for tail, is_refused in (
        ([GROUND, WORD], False),
        ([END, WORD, END, WORD], False),
        ([END, WORD, GROUND, END], True),
    ):
        again = generate(**talk("wg.w", 1))
        rest = {"input_ids": torch.cat([first.sequences, torch.tensor([tail])], 1), "cache": again["cache"]}
        rest["attention_mask"] = torch.ones_like(rest["input_ids"])
        if is_refused:
            with pytest.raises(ValueError, match="A filled cache takes no regions: pass the whole chat"):
                generate(**rest)
            rest["input_ids"] = rest["input_ids"][:, again["cache"].get_seq_length() :]  # what is new alone
            with pytest.raises(ValueError, match=MESSAGE.format(r"\[0\]")):
                generate(**rest)
        else:
            generate(**rest)


def test_a_cache_by_its_old_name_is_the_same_cache(generate, talk):
    """Transformers takes `past_key_values` until version 6; the check of the question must know the cache too."""
    first = generate(**talk("wg.w", 1))
    whole = torch.cat([first.sequences, torch.tensor([[GROUND, WORD]])], 1)
    rest = {"input_ids": whole, "attention_mask": torch.ones_like(whole)}
    by_name = generate(**rest, cache=first["cache"]).sequences
    again = generate(**talk("wg.w", 1))
    assert torch.equal(generate(**rest, past_key_values=again["cache"]).sequences, by_name)


def test_padding_that_looks_like_the_end_of_a_turn_is_none(generate, talk):
    inputs = talk("wgw")
    inputs["input_ids"] = torch.nn.functional.pad(inputs["input_ids"], (3, 0), value=END)
    inputs["attention_mask"] = torch.nn.functional.pad(torch.ones(1, 27, dtype=torch.long), (3, 0))
    with pytest.raises(ValueError, match=MESSAGE.format(r"\[0\]")):
        generate(**inputs)
