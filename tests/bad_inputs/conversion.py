"""Cases of the conversion of the original's checkpoints."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_inputs import goods
from bad_inputs.cases import door
from bad_inputs.damage import FILES, JSON_FILES, PATHS, make_fifo
from bad_inputs.loading import edit, edit_json, edit_weights, put


@door("conversion", "modeling_ide3d.conversion.convert_checkpoint", "modeling_ide3d.conversion.restore_checkpoint",
      "modeling_ide3d.auxiliary.read_original_geometry", "modeling_ide3d.auxiliary.load_converted_for_training")  # fmt: skip
def conversion(add: Callable[..., None]) -> None:
    def convert(
        folder: Path, /, change: Callable[[Path], Any] = lambda source: None, source: Any = None, **fields: Any
    ) -> Any:
        from original_checkpoints import build_model, original_weights, write_source

        from modeling_ide3d.conversion import convert_checkpoint

        if source is None:
            source = write_source(folder / "source", original_weights(build_model()))
            change(source)
        target = fields.pop("target_dir", folder / "target")
        return convert_checkpoint(source, target, **fields)

    def restore(folder: Path, /, change: Callable[[Path], Any] = lambda path: None, **fields: Any) -> Any:
        from modeling_ide3d.conversion import restore_checkpoint

        convert(folder)
        change(folder / "target")
        return restore_checkpoint(
            fields.get("converted_dir", folder / "target"), fields.get("target_dir", folder / "back")
        )

    for what, kinds in {"config.json": JSON_FILES, "model.safetensors": FILES}.items():
        for damage, change in kinds.items():
            add(f"{what} {damage}", lambda f, w=what, c=change: convert(f, lambda s: edit(s / w, c)), what)
            add(f"restore: {what} {damage}", lambda f, w=what, c=change: restore(f, lambda s: edit(s / w, c)), what,
                expect="either" if what == "config.json" else "refused")  # fmt: skip
        for damage, change in {"missing": lambda p: p.unlink(), "a pipe": make_fifo}.items():
            add(f"{what} {damage}", lambda f, w=what, c=change: convert(f, lambda s: c(s / w)), what, "safetensors")
    for key, values in {
        "hidden_size": (0, "x", None, 7), "vocab_size": (0, 10, "x"), "num_hidden_layers": (0, 9, "x"),
        "mm_spatial_pool_stride": (0, "x", None), "mm_projector_type": ("linear", 5, None),
        "mm_newline_position": ("nowhere", 5), "oracle_vision_config": (5, [], {}, {"num_hidden_layers": "x"}, {"num_hidden_layers": 1}), "rope_theta": ("x", 0), "ground_token_ids": ([], 5, ["x"], [9999], [-1], [1, 2]),
        "ground_head_temperature": (0, "x", -1, True), "model_type": ("llama", 5), "ground_head_type": ("nonsense",),
        "mm_spatial_pool_mode": ("average", 5), "rope_scaling": ("x", 5),
    }.items():  # fmt: skip
        for value in values:
            change = put(key, value=value)
            add(f"config.json: {key}={json.dumps(value)}",
                lambda f, c=change: convert(f, lambda s: edit_json(s / "config.json", c)), key, "config.json", "token")  # fmt: skip
    weights: dict[str, Callable[[dict], dict]] = {
        "half of the tensors are missing": lambda w: dict(list(w.items())[::2]),
        "a foreign tensor": lambda w: {**w, "strange.weight": next(iter(w.values())).clone()},
        "all keys are renamed": lambda w: {f"x.{k}": v for k, v in w.items()},
        "Inf in one weight": lambda w: {**w, **{k: v + float("inf") for k, v in list(w.items())[:1]}},
        "NaN weights": lambda w: {k: v * float("nan") for k, v in w.items()},
        "a tensor has another shape": lambda w: {
            k: v[:-1].clone() if k == "lm_head.weight" else v for k, v in w.items()
        },
    }
    for what, change in weights.items():
        add(
            what,
            lambda f, c=change: convert(f, lambda s: edit_weights(s / "model.safetensors", c)),
            "weight",
            "tensor",
            "lm_head",
            "strange",
            "nan",
        )
    for what, make in PATHS.items():
        if what == "None":
            continue
        words = (
            "missing-file",
            "given",
            "pipe",
            "loop",
            "source",
            "config.json",
            "/dev/full",
            "path",
            "folder",
            "xxx",
        )
        add(f"source {what}", lambda f, m=make: convert(f, source=m(f)), *words)
        add(f"restore: converted {what}", lambda f, m=make: restore(f, converted_dir=m(f)), *words, "converted")
        if what not in ("missing", "a folder"):
            add(f"target {what}", lambda f, m=make: convert(f, target_dir=m(f)), *words, "target")
    for what, value in {"0": 0, "-1": -1, "a word": "many", "NaN": float("nan"), "a list": []}.items():
        add(f"max_shard_size {what}", lambda f, v=value: convert(f, max_shard_size=v), "max_shard_size")
    for what, change in FILES.items():

        def heads(folder: Path, /, change: Any = change) -> Any:
            from modeling_ide3d.auxiliary import read_original_geometry

            path = folder / "geometry.safetensors"
            _edit_copy(path, change)
            return read_original_geometry(path)

        add(f"geometry file {what}", heads, "geometry.safetensors")


def _edit_copy(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change((goods.model_folder() / "model.safetensors").read_bytes()))
