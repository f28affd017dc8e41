"""Chats, placeholders and special tokens; what the processor returns, saves, loads and refuses."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, SiglipImageProcessor
from transformers.pipelines import ImageTextToTextPipeline
from transformers.utils.chat_template_utils import Chat

import processing
from processing import IDE3DProcessor, IDE3DVideoProcessor

TOKENS_PER_FRAME = 12  # 70 px, patches of 14, pooled by 2: 3 x (3 + 1)
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"


def user(*parts, **keys) -> dict:
    """A user message of text and (kind, data) parts."""
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": part[0], part[0]: part[1]}
        for part in parts
    ]
    return {"role": "user", "content": content, **keys}


def count(processor, inputs, token: str) -> list[int]:
    token_id = processor.tokenizer.convert_tokens_to_ids(token)
    return [list(map(int, ids)).count(token_id) for ids in inputs["input_ids"]]


def encode(processor, chat, **kwargs):
    return processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt", **kwargs)


# Template


def test_template_is_chatml_with_a_default_system_prompt(processor, frames):
    chat = [user(("video", frames(2)), "Where is the chair?")]
    assert processor.apply_chat_template(chat, add_generation_prompt=True) == (
        SYSTEM + "<|im_start|>user\n<video>\nWhere is the chair?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_template_takes_system_prompts_string_content_and_several_turns(processor):
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "<video>\nHow many chairs?"},
        {"role": "assistant", "content": [{"type": "text", "text": "Two."}]},
        {"role": "user", "content": "Tables?"},
    ]
    assert processor.apply_chat_template(chat) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<video>\nHow many chairs?<|im_end|>\n"
        "<|im_start|>assistant\nTwo.<|im_end|>\n<|im_start|>user\nTables?<|im_end|>\n"
    )


def test_template_keeps_the_order_of_parts(processor):
    message = {"role": "user", "content": [{"type": "text", "text": "See "}, {"type": "image"}, {"type": "video"}]}
    assert processor.apply_chat_template([message]) == (SYSTEM + "<|im_start|>user\nSee <image>\n<video><|im_end|>\n")


def test_template_refuses_unknown_parts(processor):
    with pytest.raises(Exception, match="video, image or text, got audio"):
        processor.apply_chat_template([{"role": "user", "content": [{"type": "audio"}]}])


def test_template_continues_an_answer(processor):
    chat = [{"role": "user", "content": "Colour?"}, {"role": "assistant", "content": "The chair is"}]
    assert processor.apply_chat_template(chat, continue_final_message=True).endswith("assistant\nThe chair is")


def test_template_follows_the_names_of_the_tokens(tokenizer):
    tokenizer.add_special_tokens({"extra_special_tokens": ["<clip>"]}, replace_extra_special_tokens=False)
    processor = IDE3DProcessor(SiglipImageProcessor(), tokenizer, IDE3DVideoProcessor(), video_token="<clip>")
    chat = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Hi"}]}]
    assert "<clip>\nHi" in processor.apply_chat_template(chat)


# Expansion


def test_a_video_expands_by_its_own_frame_count(processor, frames):
    inputs = processor(text=["<video>a", "<video>b"], videos=[frames(2), frames(5)], padding=True, return_tensors="pt")
    assert count(processor, inputs, "<video>") == [2 * TOKENS_PER_FRAME, 5 * TOKENS_PER_FRAME]
    assert set(inputs) == {"input_ids", "attention_mask", "pixel_values_videos", "video_frame_mask"}
    assert inputs["pixel_values_videos"].shape == (2, 5, 3, 70, 70)
    assert inputs["video_frame_mask"].sum(dim=1).tolist() == [2, 5]
    assert inputs["attention_mask"][0].sum() < inputs["attention_mask"][1].sum()


@pytest.mark.parametrize(
    ("image_size", "patch_size", "stride", "grid", "tokens"),
    [(384, 14, 2, (14, 14), 210), (70, 14, 2, (3, 3), 12), (64, 16, 2, (2, 2), 6), (56, 14, 1, (4, 4), 20)],
)
def test_token_grid_follows_the_sizes(tokenizer, frames, image_size, patch_size, stride, grid, tokens):
    size = {"height": image_size, "width": image_size}
    processor = IDE3DProcessor(
        SiglipImageProcessor(size=size),
        tokenizer,
        IDE3DVideoProcessor(size=size),
        patch_size=patch_size,
        image_size=image_size,
        spatial_pool_stride=stride,
    )
    assert (processor.token_grid, processor.tokens_per_frame) == (grid, tokens)
    assert count(processor, processor(text="<video>", videos=frames(2)), "<video>") == [2 * tokens]


def test_several_videos_and_images_in_any_order(processor, frames):
    image = Image.fromarray(frames(1)[0])
    inputs = processor(
        text=["<image>a<video>b<video>", "<video><image><image>"],
        images=[[image], [image, image]],
        videos=[[frames(1), frames(3)], [list(frames(2))]],
        padding=True,
        return_tensors="pt",
        return_mm_token_type_ids=True,
    )
    assert count(processor, inputs, "<image>") == [TOKENS_PER_FRAME, 2 * TOKENS_PER_FRAME]
    assert count(processor, inputs, "<video>") == [4 * TOKENS_PER_FRAME, 2 * TOKENS_PER_FRAME]
    assert inputs["pixel_values"].shape == (3, 3, 70, 70)
    assert inputs["video_frame_mask"].sum(dim=1).tolist() == [1, 3, 2]
    kinds = inputs["mm_token_type_ids"]
    assert kinds[0, : TOKENS_PER_FRAME + 2].tolist() == [1] * TOKENS_PER_FRAME + [0, 2]
    assert torch.equal(kinds == 2, inputs["input_ids"] == processor.video_token_id)
    assert torch.equal(kinds == 1, inputs["input_ids"] == processor.image_token_id)


def test_text_only(processor):
    inputs = processor(text="How are you?", return_tensors="pt")
    assert set(inputs) == {"input_ids", "attention_mask"}
    assert processor.decode(inputs["input_ids"][0]) == "How are you?"


def test_ground_tokens_are_not_expanded(processor, frames):
    inputs = processor(text="<video>What is <ground> and <ground>?", videos=frames(1))
    assert count(processor, inputs, "<ground>") == [2]


def test_left_padding(processor, frames):
    inputs = processor(
        text=["<video>a", "<video>"], videos=[frames(2)] * 2, padding=True, padding_side="left", return_tensors="pt"
    )
    assert inputs["attention_mask"].tolist() == [[1] * 25, [0] + [1] * 24]
    assert inputs["input_ids"][1, 0] == processor.tokenizer.pad_token_id


def test_input_names_are_the_keys_of_a_call(processor, frames):
    inputs = processor(
        text=["<image><video>", "<video>"],
        images=Image.fromarray(frames(1)[0]),
        videos=[frames(2), frames(2)],
    )
    assert set(inputs) == set(processor.model_input_names)


# Chats with data


def test_chats_with_files_folders_and_frames(processor, frames, write_video, tmp_path):
    folder = tmp_path / "room"
    folder.mkdir()
    for index, frame in enumerate(frames(10)):
        Image.fromarray(frame).save(folder / f"{index}.jpg")
    paths = [str(folder / f"{index}.jpg") for index in range(3)]
    forms = {str(write_video(30)): 8, str(folder): 8}
    for video, expected in forms.items():
        inputs = encode(processor, [user(("video", video), "Hi")])
        assert count(processor, inputs, "<video>") == [expected * TOKENS_PER_FRAME]
        # `transformers serve` asks every multimodal processor for the sound too.
        silent = encode(processor, [user(("video", video), "Hi")], load_audio_from_video=True)
        assert silent["input_ids"].tolist() == inputs["input_ids"].tolist()
    for video, expected in ((frames(20), 20), (list(frames(3)), 3), (paths, 3), (torch.zeros(2, 3, 8, 8), 2)):
        inputs = encode(processor, [user(("video", video), "Hi")])
        assert count(processor, inputs, "<video>") == [expected * TOKENS_PER_FRAME]
        assert inputs["pixel_values_videos"].shape[:2] == (1, expected)
    inputs = encode(processor, [user(("video", [Image.fromarray(frame) for frame in frames(4)]), "Hi")])
    assert count(processor, inputs, "<video>") == [4 * TOKENS_PER_FRAME]


def test_sampling_arguments_reach_the_video(processor, write_video, frames):
    path = str(write_video(40, rate=10))
    chat = [user(("video", path), "Hi")]
    for kwargs, expected in (({"num_frames": 3}, 3), ({"fps": 1}, 4), ({"videos_kwargs": {"num_frames": 5}}, 5)):
        inputs = encode(processor, chat, processor_kwargs=kwargs)
        assert count(processor, inputs, "<video>") == [expected * TOKENS_PER_FRAME]
    inputs = encode(processor, [user(("video", frames(9)), "Hi")], processor_kwargs={"num_frames": 2})
    assert count(processor, inputs, "<video>") == [2 * TOKENS_PER_FRAME]
    inputs = encode(processor, chat, processor_kwargs={"return_metadata": True})
    assert inputs["video_metadata"][0].frames_indices == np.linspace(0, 39, 8).astype(int).tolist()


def test_batches_of_chats_may_hold_chats_without_video(processor, frames):
    chats = [
        [user(("video", frames(2)), "A")],
        [user("B")],
        [user(("video", frames(3)), ("image", frames(1)[0]), "C")],
    ]
    inputs = encode(processor, chats, processor_kwargs={"padding": True})
    assert count(processor, inputs, "<video>") == [2 * TOKENS_PER_FRAME, 0, 3 * TOKENS_PER_FRAME]
    assert count(processor, inputs, "<image>") == [0, 0, TOKENS_PER_FRAME]
    assert inputs["video_frame_mask"].tolist() == [[True, True, False], [True] * 3]


@pytest.mark.parametrize("side", ["left", "right"])
def test_assistant_mask_lies_exactly_on_the_answers(processor, frames, side):
    long = [
        user(("image", frames(1)[0]), "What is <ground>?"),
        {"role": "assistant", "content": "A chair <ground>."},
        user(("video", frames(2)), "And here?"),
        {"role": "assistant", "content": [{"type": "text", "text": "Ein Bücherregal 书架."}]},
    ]
    short = [user("Hi"), {"role": "assistant", "content": "Yes."}]
    inputs = encode(
        processor,
        [long, short],
        return_assistant_tokens_mask=True,
        processor_kwargs={"padding": True, "padding_side": side},
    )
    assert inputs["assistant_masks"].shape == inputs["input_ids"].shape
    marked = [
        processor.decode(ids[mask.bool()])
        for ids, mask in zip(inputs["input_ids"], inputs["assistant_masks"], strict=True)
    ]
    assert marked == ["A chair <ground>.<|im_end|>Ein Bücherregal 书架.<|im_end|>", "Yes.<|im_end|>"]
    assert not inputs["assistant_masks"][inputs["attention_mask"] == 0].any()


def test_generation_prompt_is_what_precedes_the_answer(processor, frames):
    question = user(("video", frames(2)), "Colour?")
    prompt = encode(processor, [question], add_generation_prompt=True)["input_ids"][0]
    whole = encode(processor, [question, {"role": "assistant", "content": "Red."}], return_assistant_tokens_mask=True)
    first_answer_token = int(whole["assistant_masks"][0].argmax())
    assert torch.equal(prompt, whole["input_ids"][0, :first_answer_token])


def test_the_pipelines_preprocessing(processor, write_video):
    """`pipeline("image-text-to-text")` calls the processor by this method; it needs no model."""
    pipe = object.__new__(ImageTextToTextPipeline)
    pipe.processor = processor
    pipe.model = torch.nn.Linear(1, 1).to(torch.bfloat16)
    pipe.model.dtype = torch.bfloat16
    chat = Chat([user(("video", str(write_video(20))), "Where is the chair?")])
    inputs = pipe.preprocess(chat, processor_kwargs={"num_frames": 4})
    assert inputs["text"] is chat
    assert inputs["pixel_values_videos"].dtype == torch.bfloat16
    assert inputs["pixel_values_videos"].shape == (1, 4, 3, 70, 70)
    assert count(processor, inputs, "<video>") == [4 * TOKENS_PER_FRAME]
    assert processor.decode(inputs["input_ids"][0]).endswith("<|im_start|>assistant\n")
    texts = processor.post_process_image_text_to_text(inputs["input_ids"], skip_special_tokens=True)
    assert texts == ["system\nYou are a helpful assistant.\nuser\n\nWhere is the chair?\nassistant\n"]


# Counting without pixels


def test_number_of_tokens_matches_the_call(processor, write_video, frames):
    lengths = [3, 20, 50]
    videos = [str(write_video(length, f"{length}.mp4")) for length in lengths]
    images = [np.zeros((*size, 3), np.uint8) for size in ((100, 100), (500, 30))]
    inputs = processor(
        text=["<video>"] * 3 + ["<image>"] * 2, videos=videos, images=images, return_mm_token_type_ids=True
    )
    sizes = [(length, 48, 64) for length in lengths]
    stored = {"video_sizes": sizes, "do_sample_frames": True}  # a call samples files by itself
    data = processor._get_num_multimodal_tokens(image_sizes=[(100, 100), (500, 30)], **stored)
    assert data.num_video_tokens + data.num_image_tokens == [
        sum(map(bool, row)) for row in inputs["mm_token_type_ids"]
    ]
    assert data.num_image_patches == [1, 1]

    data = processor._get_num_multimodal_tokens(video_sizes=sizes, do_sample_frames=False)
    assert data.num_video_tokens == [length * TOKENS_PER_FRAME for length in lengths]
    for call in ({}, {"num_frames": 2}, {"video_metadata": [{"fps": 10}] * 3}, {"do_sample_frames": True}):
        inputs = processor(text=["<video>"] * 3, videos=[frames(length) for length in lengths], **call)
        data = processor._get_num_multimodal_tokens(video_sizes=sizes, **call)
        assert data.num_video_tokens == [row.count(processor.video_token_id) for row in inputs["input_ids"]]
    inputs = processor(text="<video>", videos=videos[2], fps=2)
    data = processor._get_num_multimodal_tokens(video_sizes=sizes[2:], fps=2, video_metadata=[{"fps": 10}])
    assert data.num_video_tokens == count(processor, inputs, "<video>")
    data = processor._get_num_multimodal_tokens(video_sizes=sizes[1:], num_frames=5)
    assert data.num_video_tokens == [5 * TOKENS_PER_FRAME] * 2


def test_replacement_offsets_show_where_a_video_stands(processor, frames):
    inputs = processor(text="a<video>b", videos=frames(1), return_text_replacement_offsets=True)
    (offsets,) = inputs["text_replacement_offsets"][0]
    assert (offsets["type"], offsets["span"]) == ("video", (1, 8))
    assert offsets["replacement"] == "<video>" * TOKENS_PER_FRAME


# Arguments


def test_flat_and_structured_arguments_reach_their_part(processor, frames):
    size = {"height": 28, "width": 28}
    small = IDE3DProcessor(
        processor.image_processor, processor.tokenizer, processor.video_processor, patch_size=14, image_size=28
    )
    for kwargs in ({"size": size, "padding": "max_length", "max_length": 40}, {
        "videos_kwargs": {"size": size},
        "text_kwargs": {"padding": "max_length", "max_length": 40},
    }):  # fmt: skip
        inputs = small(text=["<video>"] * 2, videos=[frames(2)] * 2, return_tensors="pt", **kwargs)
        assert inputs["pixel_values_videos"].shape == (2, 2, 3, 28, 28)
        assert inputs["input_ids"].shape == (2, 40)


def test_doubly_passed_arguments_raise(processor, frames):
    with pytest.raises(ValueError, match="passed two times"):
        processor(text="<video>", videos=frames(2), num_frames=2, videos_kwargs={"num_frames": 2})


# Saving and loading


def test_round_trip(processor, frames, tmp_path):
    processor.save_pretrained(tmp_path)
    video = frames(3)
    expected = encode(processor, [user(("video", video), "What is <ground>?")])
    for loaded in (IDE3DProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert isinstance(loaded, IDE3DProcessor)
        assert isinstance(loaded.video_processor, IDE3DVideoProcessor)
        assert loaded.to_dict() == processor.to_dict()
        assert loaded.chat_template == processor.chat_template
        inputs = encode(loaded, [user(("video", video), "What is <ground>?")])
        assert all(torch.equal(inputs[key], expected[key]) for key in expected)
        assert loaded.decode(expected["input_ids"][0], skip_special_tokens=True).count("<video>") == 0


def test_json_string_holds_every_setting(processor):
    settings = json.loads(processor.to_json_string())
    expected = {"patch_size": 14, "image_size": 70, "spatial_pool_stride": 2, "ground_token": "<ground>"}
    assert {key: settings[key] for key in expected} == expected
    assert settings["video_processor"]["num_frames"] == 8


def test_own_template_is_kept(processor, tmp_path):
    own = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    parts = (processor.image_processor, processor.tokenizer, processor.video_processor)
    IDE3DProcessor(*parts, chat_template=own).save_pretrained(tmp_path)
    assert IDE3DProcessor.from_pretrained(tmp_path).chat_template == own


def test_arguments_of_from_pretrained_replace_settings(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    loaded = IDE3DProcessor.from_pretrained(tmp_path, num_frames=4, spatial_pool_stride=1)
    assert loaded.tokens_per_frame == 30
    assert loaded.video_processor.num_frames == 4
    loaded = IDE3DProcessor.from_pretrained(tmp_path, fps=2)
    assert (loaded.video_processor.num_frames, loaded.video_processor.fps) == (None, 2)


STRANGER = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("processing", "modeling_ide3d", "trainer"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import torch
from transformers import AutoProcessor, AutoVideoProcessor

folder, video, again = sys.argv[1:]
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
videos = AutoVideoProcessor.from_pretrained(folder, trust_remote_code=True)
assert type(processor).__name__ == "IDE3DProcessor", type(processor)
assert type(videos).__name__ == type(processor.video_processor).__name__ == "IDE3DVideoProcessor"
assert type(processor).__module__.startswith("transformers_modules."), type(processor).__module__
content = [{"type": "video", "video": video}, {"type": "text", "text": "What is <ground>?"}]
chat = [{"role": "user", "content": content}]
call = dict(tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True)
inputs = processor.apply_chat_template(chat, **call)
processor.save_pretrained(again)
reloaded = AutoProcessor.from_pretrained(again, trust_remote_code=True)
repeated = reloaded.apply_chat_template(chat, **call)
assert all(torch.equal(inputs[key], repeated[key]) for key in inputs)
torch.save(dict(inputs), again + "/inputs.pt")
"""


@pytest.mark.slow
def test_a_saved_folder_works_where_this_package_is_absent(processor, write_video, tmp_path, monkeypatch):
    folder, again, elsewhere = tmp_path / "saved", tmp_path / "again", tmp_path / "elsewhere"
    for path in (folder, again, elsewhere):
        path.mkdir()
    monkeypatch.setattr(IDE3DProcessor, "_auto_class", "AutoProcessor")
    monkeypatch.setattr(IDE3DVideoProcessor, "_auto_class", "AutoVideoProcessor")
    processor.save_pretrained(folder)
    code = {path.name for path in Path(processing.__file__).parent.glob("*_ide3d.py")}
    assert {path.name for path in folder.glob("*.py")} == code
    (folder / "config.json").write_text(json.dumps({"model_type": "ide3d"}))
    video = str(write_video(20))
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, str(folder), video, str(again)],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert "[ERROR]" not in result.stdout
    assert {path.name for path in again.glob("*.py")} == code
    chat = [user(("video", video), "What is <ground>?")]
    expected = encode(processor, chat, add_generation_prompt=True)
    inputs = torch.load(again / "inputs.pt")
    assert set(inputs) == set(expected)
    assert all(torch.equal(inputs[key], expected[key]) for key in expected)


# Special tokens


def test_missing_special_tokens_raise_and_can_be_added(build_tokenizer):
    tokenizer = build_tokenizer(with_placeholders=False)
    parts = (SiglipImageProcessor(), tokenizer, IDE3DVideoProcessor())
    with pytest.raises(ValueError, match=r"no special token '<image>'.*add_special_tokens"):
        IDE3DProcessor(*parts)
    size = len(tokenizer)
    assert IDE3DProcessor.add_special_tokens(tokenizer) == 3
    assert IDE3DProcessor.add_special_tokens(tokenizer) == 0
    assert "<|im_start|>" in tokenizer.extra_special_tokens
    processor = IDE3DProcessor(*parts)
    ids = [processor.image_token_id, processor.video_token_id, processor.ground_token_id]
    assert ids == [size, size + 1, size + 2]
    assert tokenizer.decode(tokenizer("a<ground>b")["input_ids"], skip_special_tokens=True) == "ab"


# Bad input


def test_numbers_of_placeholders_and_videos_must_agree(processor, frames):
    with pytest.raises(ValueError, match="Found total 2 <video> tokens and 1 videos"):
        processor(text="<video><video>", videos=frames(2))
    with pytest.raises(ValueError, match="Found total 1 <video> tokens and 2 videos"):
        processor(text="<video>", videos=[frames(2), frames(2)])
    with pytest.raises(ValueError, match="no videos were passed"):
        processor(text="<video>Hi")
    with pytest.raises(ValueError, match="Found total 1 <image> tokens and 2 images"):
        processor(text="<image>", images=[frames(1)[0]] * 2)
    with pytest.raises(ValueError, match="at least one input"):
        processor()


def test_overlong_prompts_are_not_cut_in_silence(processor, frames):
    with pytest.raises(ValueError, match="Mismatch in `video` token count"):
        processor(text="<video>Hi", videos=frames(3), truncation=True, max_length=20)


def test_bad_frames_raise_through_the_processor(processor, frames, tmp_path):
    with pytest.raises(ValueError, match="no frames"):
        processor(text="<video>", videos=[])
    with pytest.raises(ValueError, match="no frames"):
        processor(text=["<video>", "<video>"], videos=[frames(2), []])
    with pytest.raises(ValueError, match="no frames"):
        encode(processor, [user(("video", []), "Hi")])
    with pytest.raises(ValueError, match="at least one pixel"):
        processor(text="<video>", videos=np.zeros((2, 0, 4, 3), np.uint8))
    with pytest.raises(ValueError, match=r"NaN or infinite pixels in frame\(s\) \[1\]"):
        processor(text="<video>", videos=np.stack([np.full((8, 8, 3), 9.0), np.full((8, 8, 3), np.nan)]))
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4"):
        encode(processor, [user(("video", str(tmp_path / "gone.mp4")), "Hi")])
    with pytest.raises(ValueError, match="audio is not supported"):
        processor(text="Hi", audio=np.zeros(100))


def test_bad_images_raise(processor):
    with pytest.raises(ValueError, match=r"NaN or infinite pixels in frame\(s\) \[0\] of image 1"):
        processor(text="<image><image>", images=[np.zeros((8, 8, 3)), np.full((8, 8, 3), np.nan)])
    with pytest.raises(ValueError, match="at least one pixel"):
        processor(text="<image>", images=np.zeros((0, 8, 3), np.uint8))


def test_pixels_of_another_size_than_the_token_count_raise(processor, frames):
    parts = (processor.image_processor, processor.tokenizer, processor.video_processor)
    other = IDE3DProcessor(*parts, image_size=84)
    with pytest.raises(ValueError, match="video processor made 70 x 70 pixels"):
        other(text="<video>", videos=frames(1))
    with pytest.raises(ValueError, match="image processor made 70 x 70 pixels"):
        other(text="<image>", images=frames(1)[0])


def test_impossible_sizes_and_unknown_arguments_raise(processor):
    parts = (processor.image_processor, processor.tokenizer, processor.video_processor)
    for sizes in ({"patch_size": 0}, {"image_size": 10}, {"spatial_pool_stride": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            IDE3DProcessor(*parts, **sizes)
    with pytest.raises(TypeError, match="pool_stride"):
        IDE3DProcessor(*parts, pool_stride=2)
    with pytest.raises(TypeError, match="tokenizer"):
        IDE3DProcessor(processor.image_processor, None, processor.video_processor)
