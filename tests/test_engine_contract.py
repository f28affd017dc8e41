"""What vLLM's Transformers backend asks of processor and model, in calls like those of its source (0.33).

It counts tokens from sizes alone, calls the processor with all items of a request and a text of bare placeholders, and
cuts the outputs into items. It caches these by their content, joins them with items of other requests, encodes them by
`get_image_features` and `get_video_features`, and gives embeddings to the bare model. vLLM itself is not needed here.
"""

import json
from typing import Any

import numpy as np
import pytest
import torch
from exporting import build_model, build_processor
from PIL import Image
from transformers import AutoModel, AutoProcessor

from modeling_ide3d import IDE3DModel
from processing import IDE3DProcessor
from trainer import export_inference_model

MAX_PROFILED_FRAMES = 16
LENGTHS = (2, 5, 3)
FIELDS = {"image": ("pixel_values",), "video": ("pixel_values_videos", "video_frame_mask")}


def film(num_frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num_frames, 48, 64, 3), np.uint8)


def metadata_of(video: np.ndarray, total: int | None = None) -> dict[str, Any]:
    """Metadata as its loaders write it: of all frames, or of frames that it sampled from `total`."""
    total = total or len(video)
    indices = np.linspace(0, total - 1, len(video), dtype=int).tolist()
    return {
        "total_num_frames": total,
        "fps": 30.0 if total > len(video) else None,
        "duration": total / 30.0 if total > len(video) else None,
        "video_backend": "opencv",
        "frames_indices": indices,
    }


def call(processor: IDE3DProcessor, videos=(), images=(), total: int | None = None, **options: Any) -> dict[str, list]:
    """Process the items of a request; return those of each modality, with the tokens that stand for them."""
    text = processor.image_token * len(images) + processor.video_token * len(videos)
    data: dict[str, Any] = {"text": text, "return_text_replacement_offsets": True}
    if images:
        data["images"] = list(images)
    if videos:
        data |= {"videos": list(videos), "video_metadata": [metadata_of(video, total) for video in videos]}
        options = {"do_sample_frames": False, **options}
    outputs = processor(**data, **options, truncation=False, add_special_tokens=False, return_tensors="pt")
    found: dict[str, list] = {"image": [], "video": []}
    for entry in outputs["text_replacement_offsets"][0]:
        ids = processor.tokenizer(entry["replacement"], add_special_tokens=False)["input_ids"]
        place = len(found[entry["type"]])
        fields = {name: outputs[name][place] for name in FIELDS[entry["type"]]}
        found[entry["type"]].append({"ids": ids, **fields})
    for kind, given in (("image", images), ("video", videos)):
        assert len(found[kind]) == len(given)
        # Rows belong to items: a field has one for each.
        assert all(len(outputs[name]) == len(given) for name in FIELDS[kind] if given)
    return found


def join(items: list[dict], name: str) -> torch.Tensor | list[torch.Tensor]:
    """Items of one shape are stacked, others stay a list."""
    rows = [item[name] for item in items]
    return torch.stack(rows) if len({row.shape for row in rows}) == 1 else rows


def encode(model: IDE3DModel, items: list[dict], kind: str) -> list[torch.Tensor]:
    """Encode items of one modality, one at a time where their shapes differ."""
    get_features = getattr(model, f"get_{kind}_features")
    pixels, *others = FIELDS[kind]
    batch = {name: join(items, name) for name in FIELDS[kind]}
    if isinstance(batch[pixels], torch.Tensor):
        return list(get_features(batch[pixels], **{name: batch[name] for name in others}).pooler_output)
    features = []
    for index, item in enumerate(batch[pixels]):
        own = {name: batch[name][index : index + 1] for name in others}
        features.append(torch.cat(list(get_features(item.unsqueeze(0), **own).pooler_output)))
    return features


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Processor and bare model of an export for engines."""
    processor = build_processor()
    folder = tmp_path_factory.mktemp("engine") / "export"
    export_inference_model(build_model(processor), processor, folder, auto_model="base")
    return IDE3DProcessor.from_pretrained(folder), IDE3DModel.from_pretrained(folder).eval(), folder


class TestCounts:
    def test_both_modalities_are_counted(self, base):
        processor, _, _ = base
        counted = processor._get_num_multimodal_tokens(image_sizes=([10_000, 10_000],), video_sizes=([1, 64, 64],))
        assert counted["num_image_tokens"] == [processor.tokens_per_frame] and counted["num_image_patches"] == [1]
        assert counted["num_video_tokens"] == [processor.tokens_per_frame]

    @pytest.mark.parametrize("count", range(1, MAX_PROFILED_FRAMES + 1, 5))
    def test_counts_of_sizes_are_those_of_the_call(self, base, count):
        """The largest video that is profiled has all its frames; the processor samples none of them."""
        processor, _, _ = base
        (item,) = call(processor, [film(count)])["video"]
        counted = processor._get_num_multimodal_tokens(video_sizes=([count, 48, 64],))["num_video_tokens"]
        assert [len(item["ids"])] == counted == [count * processor.tokens_per_frame]

    def test_counts_of_a_request(self, base):
        processor, _, _ = base
        videos = [film(count) for count in LENGTHS]
        items = call(processor, videos, [Image.new("RGB", (50, 90))] * 2, total=300)
        counted = processor._get_num_multimodal_tokens(
            video_sizes=[video.shape[:3] for video in videos], image_sizes=[(90, 50)] * 2
        )
        assert [len(item["ids"]) for item in items["video"]] == counted["num_video_tokens"]
        assert [len(item["ids"]) for item in items["image"]] == counted["num_image_tokens"]

    def test_every_token_of_a_replacement_is_the_placeholder(self, base):
        processor, _, _ = base
        items = call(processor, [film(2)], [Image.new("RGB", (50, 90))])
        assert set(items["video"][0]["ids"]) == {processor.video_token_id}
        assert set(items["image"][0]["ids"]) == {processor.image_token_id}


class TestItems:
    @pytest.mark.parametrize("lengths", [LENGTHS, (3, 3), (4,)])
    def test_an_item_does_not_depend_on_its_neighbours(self, base, lengths):
        processor, _, _ = base
        videos = [film(count, seed) for seed, count in enumerate(lengths)]
        together = call(processor, videos, [Image.new("RGB", (50, 90))])["video"]
        for video, item in zip(videos, together, strict=True):
            (alone,) = call(processor, [video])["video"]
            assert alone.keys() == item.keys() and alone["ids"] == item["ids"]
            assert all(torch.equal(alone[name], item[name]) for name in FIELDS["video"])

    @pytest.mark.parametrize("pad_frames", [False, True])
    def test_features_are_those_of_each_alone(self, base, pad_frames):
        """Padding of a processor without the setting is masked: it takes memory, and changes no feature."""
        processor, model, _ = base
        videos = [film(count, seed) for seed, count in enumerate(LENGTHS)]
        with torch.no_grad():
            items = call(processor, videos, pad_frames=pad_frames)["video"]
            assert [len(item["pixel_values_videos"]) for item in items] == ([5, 5, 5] if pad_frames else [*LENGTHS])
            of_another_request = call(processor, [film(4, 9)])["video"]
            for joined in (items, items[:1], items[::-1], items + of_another_request, of_another_request + items[:1]):
                for item, features in zip(joined, encode(model, joined, "video"), strict=True):
                    expected = encode(model, [item], "video")[0]
                    assert len(features) == len(item["ids"])
                    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)

    def test_features_of_images(self, base):
        processor, model, _ = base
        items = call(processor, images=[Image.fromarray(film(1, seed)[0]) for seed in range(3)])["image"]
        with torch.no_grad():
            for item, features in zip(items, encode(model, items, "image"), strict=True):
                assert len(features) == len(item["ids"])
                torch.testing.assert_close(features, encode(model, [item], "image")[0], atol=1e-5, rtol=1e-5)

    def test_a_video_that_its_loader_did_not_sample(self, base):
        """Such items ask for sampling; the processor then takes its own number of frames, at most."""
        processor, _, _ = base
        count = processor.video_processor.num_frames + 5
        (item,) = call(processor, [film(count)], do_sample_frames=True)["video"]
        assert len(item["pixel_values_videos"]) == processor.video_processor.num_frames
        assert len(item["ids"]) == processor.video_processor.num_frames * processor.tokens_per_frame


class TestModel:
    def test_embeddings_give_the_states_of_pixels(self, base):
        processor, model, _ = base
        videos, image = [film(2), film(3, 1)], Image.new("RGB", (50, 90))
        text = f"a{processor.video_token}b{processor.image_token}c{processor.video_token}d"
        with torch.no_grad():
            inputs = processor(text=text, videos=videos, images=[image], return_tensors="pt", pad_frames=True)
            expected = model(**inputs).last_hidden_state[0]
            items = call(processor, videos, [image])
            input_ids = inputs["input_ids"]
            embeds = model.get_input_embeddings()(input_ids)[0].clone()
            for kind, token_id in (("image", processor.image_token_id), ("video", processor.video_token_id)):
                embeds[input_ids[0] == token_id] = torch.cat(encode(model, items[kind], kind))
            outputs = model(
                input_ids=None,
                inputs_embeds=embeds[None],
                use_cache=False,
                position_ids=torch.arange(len(embeds))[None],
                return_dict=False,
            )
        torch.testing.assert_close(outputs[0][0], expected, atol=1e-5, rtol=1e-5)

    def test_parts_are_found(self, base):
        _, model, _ = base
        assert model.get_decoder() is model.language_model
        assert model.get_encoder(modality="image") is model.get_encoder(modality="video") is model.vision_tower
        assert model._supports_attention_backend

    def test_the_export_for_engines_says_so(self, base):
        _, _, folder = base
        assert not AutoProcessor.from_pretrained(folder).video_processor.pad_frames
        assert isinstance(AutoModel.from_config(IDE3DModel.from_pretrained(folder).config), torch.nn.Module)
        assert json.loads((folder / "config.json").read_text())["auto_map"]["AutoModel"].endswith("IDE3DModel")


def test_a_setting_of_another_type_is_refused(base):
    with pytest.raises(TypeError, match="pad_frames must be True or False"):
        base[0].video_processor([film(2)], pad_frames="no")
