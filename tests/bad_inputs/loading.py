"""Cases of saved models: damaged folders, exports, configs, conversion of the original's checkpoints."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bad_inputs import goods
from bad_inputs.cases import door
from bad_inputs.damage import FILES, JSON_FILES, NUMBERS, PATHS, TEXTS, make_fifo

INHERITED = "Transformers reads this file before our code is asked"


def load_all(folder: Path | str, **options: Any) -> tuple[Any, Any]:
    """Load model and processor as a user does."""
    from modeling_ide3d import IDE3DForConditionalGeneration
    from processing import IDE3DProcessor

    model = IDE3DForConditionalGeneration.from_pretrained(folder, **options)
    return model, IDE3DProcessor.from_pretrained(folder)


def _damaged(
    folder: Path, /, name: str, change: Callable[[Path], Any], then: Callable = lambda model, processor: None
) -> Any:
    path = goods.copy_model(folder)
    change(path / name)
    then(*load_all(path))


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def edit_json(path: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content) or content))


def put(*keys: str, value: Any) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


def _generate(model: Any, processor: Any) -> Any:
    from exporting import build_inputs

    inputs = build_inputs(processor, goods.video_file(Path.cwd()), add_generation_prompt=True)
    return model.generate(**inputs, max_new_tokens=2)


def edit_weights(path: Path, change: Callable[[dict], dict]) -> None:
    from safetensors.torch import load_file, save_file

    save_file(change(dict(load_file(path))), path, metadata={"format": "pt"})


@door("from_pretrained, damaged folder", "modeling_ide3d.IDE3DForConditionalGeneration", "modeling_ide3d.IDE3DModel",
      "processing.IDE3DProcessor", "processing.IDE3DVideoProcessor", "trainer.session.load_inference_model",
      "ide3d.nano_model")  # fmt: skip
def from_pretrained(add: Callable[..., None]) -> None:
    add("right: as it is", lambda f: load_all(goods.model_folder()), expect="taken")
    names = ("config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json")
    for name in (*names, "chat_template.jinja", "model.safetensors", "generation_config.json"):
        kinds = JSON_FILES if name.endswith(".json") else FILES
        for what, change in kinds.items():
            # A text of one byte, zeros or a page is a template; what it renders is another matter.
            is_text = name.endswith("jinja") and what not in ("binary", "garbage")
            then = _generate if name == "generation_config.json" else lambda model, processor: None
            title = f"{name} {what}" + (": what generate does" if name == "generation_config.json" else "")
            expect = "either" if is_text or (name, what) == ("tokenizer_config.json", "null") else "refused"
            add(
                title,
                partial(_damaged, name=name, change=partial(edit, change=change), then=then),
                name,
                expect=expect,
            )
        title = f"{name} missing" + (": what generate does" if name == "generation_config.json" else "")
        if name != "chat_template.jinja":
            expect = "either" if name == "tokenizer_config.json" else "refused"
            add(title, partial(_damaged, name=name, change=lambda p: p.unlink(),
                               then=_generate if name == "generation_config.json" else lambda m, p: None),
                name, expect=expect)  # fmt: skip
        add(f"{name} a folder", partial(_damaged, name=name, change=lambda p: (p.unlink(), p.mkdir())), name)
        add(f"{name} a pipe", partial(_damaged, name=name, change=make_fifo), name)
    weights = {
        "half of the tensors are missing": lambda w: dict(list(w.items())[::2]),
        "all keys are renamed": lambda w: {f"x.{k}": v for k, v in w.items()},
        "one tensor is missing": lambda w: dict(list(w.items())[1:]),
        "no tensor at all": lambda w: {"x": next(iter(w.values()))},
        "a tensor has another shape": lambda w: {**w, **{k: v[:-1].clone() for k, v in list(w.items())[:1]}},
        "a tensor is transposed": lambda w: {k: v.T.contiguous() if v.dim() == 2 else v for k, v in w.items()},
        "NaN weights": lambda w: {k: v * float("nan") for k, v in w.items()},
        "Inf in one weight": lambda w: {**w, **{k: v + float("inf") for k, v in list(w.items())[:1]}},
        "integer weights": lambda w: {k: v.to(dtype=__import__("torch").int32) for k, v in w.items()},
    }
    for what, change in weights.items():
        add(what, partial(_damaged, name="model.safetensors", change=partial(edit_weights, change=change)),
            "weight", "tensor", "key", "missing", "safetensors")  # fmt: skip
    add("right: a tensor too many", partial(_damaged, name="model.safetensors", change=partial(
        edit_weights, change=lambda w: {**w, "extra.weight": next(iter(w.values())).clone()})), expect="either")  # fmt: skip
    add("model.safetensors: bytes behind the end",
        partial(_damaged, name="model.safetensors", change=partial(edit, change=lambda d: d + b"xx")), "model.safetensors")  # fmt: skip
    add("model.safetensors: a header of 10^15 bytes", partial(_damaged, name="model.safetensors", change=partial(
        edit, change=lambda d: (10**15).to_bytes(8, "little") + d[8:])), "model.safetensors")  # fmt: skip
    changes = {
        ("text_config", "vocab_size"): (10, 0, -1, "x", None, 1.5),
        ("text_config", "hidden_size"): (7, 0, -8, "x"),
        ("text_config", "num_hidden_layers"): (0, -1, 99, "x"),
        ("text_config", "num_attention_heads"): (0, 5, "x"),
        ("text_config", "model_type"): ("nonsense", None, 5),
        ("vision_config", "patch_size"): (0, -14, 999, "x"),
        ("vision_config", "image_size"): (0, -70, "x", [70, 84]),
        ("vision_config", "model_type"): ("bert", "nonsense", None),
        ("vision_config", "num_hidden_layers"): (0, 9),
        ("image_token_id",): (-1, 10**9, "x", 1.5),
        ("video_token_id",): (-5, None),
        ("model_type",): ("llama", "nonsense", 5, None),
        ("spatial_pool_stride",): (0, -1, "x"),
        ("grounding_temperature",): (0, -1.0, "x"),
        ("vision_config",): (None, 5, []),
        ("text_config",): (5, "x", []),
        ("dtype",): ("float99", 5),
    }
    for keys, values in changes.items():
        for value in values:
            if (keys, value) == (("model_type",), 5):
                continue
            add(f"config.json: {'__'.join(keys)}={json.dumps(value).replace(' ', '')}",
                partial(_damaged, name="config.json", change=partial(edit_json, change=put(*keys, value=value))),
                keys[-1], keys[0], "config.json", "checkpoint")  # fmt: skip
    processing = {
        ("video_processor", "image_std"): ([0.1, 0.1, 0.1], [0, 0, 0], "x", [1, 2]),
        ("video_processor", "image_mean"): ([9, 9, 9], "x", [0.5]),
        ("video_processor", "size"): ({"height": 7, "width": 7}, "x", 5),
        ("video_processor", "num_frames"): (0, -1, "x", 1.5),
        ("image_processor", "image_std"): ([0.1, 0.1, 0.1], [0, 0, 0]),
        ("image_processor", "size"): ({"height": 7, "width": 7},),
        ("patch_size",): (0, -1, "x", 7, 1.5),
        ("image_size",): (0, 35, "x"),
        ("spatial_pool_stride",): (0, 9, "x"),
        ("video_token",): ("<nonsense>", 5, ""),
        ("processor_class",): ("Nonsense",),
    }
    for keys, values in processing.items():
        for value in values:
            expect = (
                "either"
                if keys[0] == "processor_class" or keys == ("spatial_pool_stride",) and value == 9
                else "refused"
            )
            add(f"processor_config.json: {'__'.join(keys)}={json.dumps(value).replace(' ', '')}",
                partial(_damaged, name="processor_config.json",
                        change=partial(edit_json, change=put(*keys, value=value)), then=_agree),
                keys[-1], keys[0], "processor_config.json", expect=expect)  # fmt: skip
    for what, make in PATHS.items():
        for loader in ("model", "processor", "session"):

            def run(folder: Path, /, make: Any = make, loader: str = loader) -> Any:
                from modeling_ide3d import IDE3DForConditionalGeneration
                from processing import IDE3DProcessor
                from trainer.session import load_inference_model

                load = {"model": IDE3DForConditionalGeneration.from_pretrained,
                        "processor": IDE3DProcessor.from_pretrained, "session": load_inference_model}  # fmt: skip
                return load[loader](make(folder), **({} if loader != "session" else {"device": "cpu"}))

            words = ("missing-file", "given", "pipe", "loop", "path", "model", "folder", "config.json", "repo")
            add(f"{loader}: path {what}", run, *words, reason=INHERITED if loader != "session" else "")
    for name, values in {
        "device": ("nonsense", None, 5, "cuda:99"),
        "dtype": ("nonsense", 5, "int8", "float99"),
    }.items():
        for value in values:
            add(f"session: {name} {value}", partial(_load_session, name, value), name)


def _agree(model: Any, processor: Any) -> None:
    """Look at a video, as whoever loads a processor does."""
    _generate(model, processor)


def _load_session(name: str, value: Any, folder: Path) -> Any:
    from trainer.session import load_inference_model

    return load_inference_model(goods.model_folder(), **{"device": "cpu", name: value})


@door("export", "trainer.export_inference_model")
def export(add: Callable[..., None]) -> None:
    def run(folder: Path, /, change: Callable[[Any], Any] = lambda model: None, **fields: Any) -> Any:
        from trainer import export_inference_model

        model = goods.fresh_model()
        change(model)
        given = {"model": model, "processor": goods.processor(), "folder": folder / "export", **fields}
        return export_inference_model(given.pop("model"), given.pop("processor"), given.pop("folder"), **given)

    def first(model: Any) -> Any:
        return next(model.parameters()).data.view(-1)

    add("right: fresh", run, expect="taken")
    add("right: bfloat16", lambda f: run(f, dtype=_dtype("bfloat16")), expect="taken")
    add("right: dtype by its name", lambda f: run(f, dtype="float16"), expect="taken")
    add("right: over an old one", lambda f: (run(f), run(f)), expect="taken")
    add(
        "float16 overflow of a weight of 1e6",
        lambda f: run(f, lambda m: first(m)[:1].fill_(1e6), dtype=_dtype("float16")),
        "float16",
        "finite",
    )
    add(
        "float16 of a weight of 1e6: what is written",
        lambda f: run(f, lambda m: first(m)[:1].fill_(1e6), dtype=_dtype("float16")),
        "float16",
        "finite",
    )
    for what, value in {"NaN": float("nan"), "Inf": float("inf"), "a negative Inf": float("-inf")}.items():
        add(
            f"a weight of {what}",
            lambda f, v=value: run(f, lambda m: first(m)[:1].fill_(v)),
            "finite",
            "weight",
            "nan",
        )
    add("weights on meta", lambda f: run(f, lambda m: m.to("meta")), "memory", "meta")
    add("weights of mixed types", lambda f: run(f, lambda m: m.lm_head.half()), "type", "dtype")
    for what, make in PATHS.items():
        if what not in ("missing", "a folder", "a device"):
            title = "empty name" if what == "empty name" else f"folder {what}"
            add(
                title,
                lambda f, make=make: run(f, folder=make(f)),
                "folder",
                "pipe",
                "inner",
                "loop",
                "5000",
                "xxx",
                "path",
            )
    add("to a file", lambda f: (_write(f / "export"), run(f)), "file")
    add(
        "to a folder of other files",
        lambda f: ((f / "export").mkdir(), _write(f / "export" / "mine"), run(f)),
        "export",
    )
    add("to a device", lambda f: run(f, folder="/dev/full"), "/dev/full")
    for name in ("model", "processor"):
        for what, value in TEXTS.items():
            add(f"{name} {what}", lambda f, n=name, v=value: run(f, **{n: v}), name, "IDE3D")
    for name, values in {
        "auto_model": {"unknown": "x", **TEXTS},
        "dtype": {"a word": "many", "an int": 5, "a type that is no float": "int", "a list": []},
        "max_shard_size": {"0": 0, "-1": -1, "a word": "many", "NaN": float("nan"), "None": None, "a list": []},
        "card": {"a string": "x", "an int": 5},
    }.items():
        for what, value in values.items():
            value = _dtype("int32") if value == "int" and name == "dtype" else value
            add(f"{name} {what}", lambda f, n=name, v=value: run(f, **{n: v}), name)
    for name, value in {
        "patch_size": 7,
        "image_size": 140,
        "spatial_pool_stride": 1,
        "video_token": "<image>",
    }.items():
        add(
            f"a processor of another {name}",
            lambda f, n=name, v=value: run(f, processor=_changed(n, v)),
            name,
            "token",
        )


def _changed(name: str, value: Any) -> Any:
    import copy

    processor = copy.deepcopy(goods.processor())
    setattr(processor, name, value)
    if name == "video_token":
        processor.video_token_id = processor.image_token_id
    return processor


def _dtype(name: str) -> Any:
    import torch

    return getattr(torch, name)


def _write(path: Path) -> None:
    path.write_text("x")


@door("IDE3DConfig", "modeling_ide3d.IDE3DConfig")
def config(add: Callable[..., None]) -> None:
    def run(folder: Path, /, vision: dict | None = None, text: dict | None = None, **fields: Any) -> Any:
        from conftest import build_tiny_config

        return build_tiny_config(vision, text, **fields)

    add("right: tiny", run, expect="taken")
    inf, nan = float("inf"), float("nan")
    fields: dict[str, dict] = {
        "grounding_temperature": {"float('inf')": inf, "NaN": nan, "0": 0.0, "-1": -1.0, "a string": "x", "None": None, "bool": True},
        "spatial_pool_stride": {key: value for key, value in NUMBERS.items() if key != "huge"} | {"bool": True, "99": 99},
        "vision_feature_layer": {k: v for k, v in NUMBERS.items() if k not in ("0", "-1")} | {"9": 9, "-9": -9},
        "image_token_id": {**NUMBERS, "that of video": 101, "of no vocabulary": 120},
        "video_token_id": dict(NUMBERS),
        "ground_token_id": dict(NUMBERS),
        "projector_hidden_act": {"unknown": "nonsense", "None": None, "a number": 5},
        "spatial_pool_mode": {"unknown": "nearest", "None": None, "a number": 5},
        "dtype": {"unknown": "float99", "a number": 5}, "detach_region_references": {"a string": "no", "None": None, "a number": 5},
        "tie_word_embeddings": {"a string": "no", "a number": 5},
        "vision_config": {"a number": 5, "a string": "x", "a list": []},
        "text_config": {"a number": 5, "a string": "x", "a list": []},
        "misspelt field": {"grounding_temprature": 1},
    }  # fmt: skip
    for name, values in fields.items():
        for what, value in values.items():
            if name == "misspelt field":
                add("misspelt field", lambda f: run(f, grounding_temprature=0.1), "grounding_temprature")
            elif name in ("vision_config", "text_config"):
                add(f"{name} {what}", lambda f, n=name, v=value: _config(**{n: v}), name)
            elif (name, what) not in (("image_token_id", "0"), ("video_token_id", "0"), ("ground_token_id", "0")):
                title = "grounding_temperature=float('inf')" if what == "float('inf')" else f"{name} {what}"
                add(title, lambda f, n=name, v=value: _build(run(f, **{n: v})), name)
    add("another misspelt field", lambda f: run(f, spatial_pool_strides=2), "spatial_pool_strides")
    sizes = {"patch_size": (-14, 0, "x", None, 999, 1.5, [14, 7]), "image_size": (0, -70, "x", [70, 84]),
             "hidden_size": (0, -32, "x", 33), "num_hidden_layers": (-1, "x", 1.5), "num_attention_heads": (0, 5, -2),
             "num_channels": (0, 1, -3), "intermediate_size": (0, -1), "hidden_act": ("nonsense", 5),
             "layer_norm_eps": (float("nan"), -1.0), "attention_dropout": (-0.5, 2.0), "model_type": ("nonsense", 5),
             "dtype": ("float99", 5)}  # fmt: skip
    for name, values in sizes.items():
        for value in values:
            title = "patch negative" if (name, value) == ("patch_size", -14) else f"vision {name} {value}"
            add(title, lambda f, n=name, v=value: _build(run(f, vision={n: v})), name, "vision_config", "patch")
    text = {
        "num_attention_heads": (5, 0, -4),
        "hidden_size": (0, 47, "x"),
        "vocab_size": (0, 10, -1),
        "num_hidden_layers": (0, -1, "x"),
        "num_key_value_heads": (0, 3, -1),
        "intermediate_size": (0, -1),
        "model_type": ("nonsense", 5),
        "pad_token_id": (-5, 999),
        "hidden_act": ("nonsense",),
        "rms_norm_eps": (float("nan"), float("inf")),
        "attention_dropout": (-0.5, 2.0),
        "dtype": ("float99",),
        "rope_parameters": (
            "x",
            {"rope_type": "nonsense", "rope_theta": 1.0},
            {"rope_type": "default", "rope_theta": 0.0},
        ),
        "initializer_range": (-1.0, float("nan")),
        "max_position_embeddings": (0, -5),
        "eos_token_id": (999, "x"),
    }
    text["num_hidden_layers"] += (10**30,)  # fmt: skip
    for name, values in text.items():
        for value in values:
            title = (
                "heads of text that do not divide the width"
                if (name, value) == ("num_attention_heads", 5)
                else f"text {name} {value}"
            )
            add(title, lambda f, n=name, v=value: _build(run(f, text={n: v})), name, "text_config", "head", "hidden")


def _config(**fields: Any) -> Any:
    from modeling_ide3d import IDE3DConfig

    return IDE3DConfig(**fields)


def _build(config: Any) -> Any:
    import torch

    from modeling_ide3d import IDE3DForConditionalGeneration

    with torch.device("meta"):
        return IDE3DForConditionalGeneration(config)
