"""Good things to damage: small arrays, folders, models. What is dear is made once for all processes."""

import copy
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

ROOT = "IDE3D_BAD_INPUTS"  # Folder of what is made once.


def root() -> Path:
    """Folder of what is made once; of this process alone where nobody set it."""
    if not os.environ.get(ROOT):
        os.environ[ROOT] = tempfile.mkdtemp(prefix="bad-inputs-")
    folder = Path(os.environ[ROOT])
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def shared_root() -> Iterator[Path]:
    """A folder for this process and its children, removed afterwards; or the one that is set, which is kept."""
    if os.environ.get(ROOT):
        yield root()
        return
    made = tempfile.mkdtemp(prefix="bad-inputs-")
    os.environ[ROOT] = made
    try:
        rooms_folder()
        model_folder()
        yield Path(made)
    finally:
        os.environ.pop(ROOT)
        shutil.rmtree(made, ignore_errors=True)


def warm_up() -> None:
    """Import what the cases import, before memory is limited."""
    import PIL.Image  # noqa: F401
    import torch
    import transformers  # noqa: F401

    torch.set_num_threads(1)

    import modeling_ide3d.auxiliary
    import trainer.evaluation
    import trainer.session

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    _ = (modeling_ide3d.auxiliary.GeometricValidator, trainer.evaluation.run_evaluation, trainer.session.SceneSession)


def _once(name: str, make: Any) -> Path:
    path = root() / name
    if not path.exists():
        part = Path(tempfile.mkdtemp(dir=root()))
        make(part / name)
        try:
            (part / name).rename(path)
        except OSError:
            if not path.exists():  # another process was first
                raise
        shutil.rmtree(part, ignore_errors=True)
    return path


def rooms_folder() -> Path:
    """One room a split in the public layout, 48 x 48 px, 4 frames. Do not write into it."""

    def make(path: Path) -> None:
        from processing.benchmarks.export.rooms import export_rooms

        export_rooms(path, num_scenes=1, image_size=48, num_frames=4)

    return _once("rooms", make)


def copy_rooms(folder: Path) -> Path:
    """A copy of the rooms to damage."""
    return Path(shutil.copytree(rooms_folder(), folder / "data"))


def model_folder() -> Path:
    """A tiny model with its processor. Do not write into it."""

    def make(path: Path) -> None:
        from scene_models import build_scene_model, build_scene_processor

        processor = build_scene_processor()
        build_scene_model(processor).save_pretrained(path)
        processor.save_pretrained(path)

    return _once("model", make)


def copy_model(folder: Path) -> Path:
    """A copy of the model's folder to damage."""
    return Path(shutil.copytree(model_folder(), folder / "model"))


@cache
def processor() -> Any:
    """The processor of the tiny model, 3 x 3 tokens a frame, three frames."""
    from scene_models import build_scene_processor

    return build_scene_processor()


@cache
def _model() -> Any:
    from scene_models import build_scene_model

    return build_scene_model(processor())


def model() -> Any:
    """The tiny model; nobody changes it."""
    return _model()


def fresh_model() -> Any:
    """A copy of the tiny model to change."""
    return copy.deepcopy(_model())


def pixels(count: int = 3, height: int = 24, width: int = 32) -> np.ndarray:
    """Random frames, uint8."""
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@cache
def _sample() -> dict[str, Any]:
    from training_samples import make_sample

    return make_sample(4)


def sample(**fields: Any) -> dict[str, Any]:
    """A training sample of four frames of 48 x 64 px with geometry; `fields` replace, `...` leaves out."""
    made = {**copy.deepcopy(_sample()), **fields}
    return {key: value for key, value in made.items() if value is not ...}


def posed(**fields: Any) -> dict[str, Any]:
    """The fields of a `PosedVideo` with boxes; `fields` replace."""
    found = sample()
    boxes = np.array([[0.0, 0, 3, 2, 2, 0.5], [0.1, -0.05, 2, 0.9, 0.9, 0.9], [0.5, 0, 3, 1, 1, 0.4]])
    made = {key: found[key] for key in ("frames", "depth", "intrinsics", "camera_to_world")}
    made |= {"boxes": boxes, "labels": ("wall", "ball", "wall"), "frame_names": tuple("abcd"), "scene_id": "room"}
    made |= fields
    return {key: value for key, value in made.items() if value is not ...}


def scene_folder(folder: Path) -> Path:
    """The sample as files of the posed_images layout: frames, depth in millimetres, poses, camera."""
    from PIL import Image

    found = sample()
    path = folder / "scene"
    path.mkdir()
    for index in range(len(found["frames"])):
        Image.fromarray(found["frames"][index]).save(path / f"{index:05d}.jpg")
        steps = np.rint(found["depth"][index] * 1000).astype(np.uint16)
        Image.fromarray(steps).save(path / f"{index:05d}.png")
        np.savetxt(path / f"{index:05d}.txt", found["camera_to_world"][index])
    np.savetxt(path / "intrinsic.txt", found["intrinsics"][0])
    return path


def video_file(folder: Path, suffix: str = "mp4", count: int = 24) -> Path:
    """A video of 32 x 24 pixels whose frames differ."""
    import av

    codec = {"mp4": "libx264", "mkv": "libx264", "webm": "libvpx-vp9", "avi": "mpeg4"}[suffix]
    path = folder / f"video.{suffix}"
    picture = np.linspace(0, 200, 48 * 64 * 3).reshape(48, 64, 3).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.thread_count = 1  # else the bytes depend on the number of cores
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, 5 * index, 1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def processor_grid() -> Any:
    """The token grid of the tiny model."""
    from processing import TokenGrid

    return TokenGrid(70, 14, 2)


def write_picture(path: Path, height: int, width: int, form: str = "JPEG") -> None:
    """Write a grey picture."""
    from PIL import Image

    Image.new("L" if form == "PNG" else "RGB", (width, height)).save(path, form)


def write_depth(path: Path, change: Any) -> None:
    """Change a depth map of 16 bits."""
    from PIL import Image

    with Image.open(path) as image:
        array = np.asarray(image)
    Image.fromarray(change(array).astype(np.uint16)).save(path)
