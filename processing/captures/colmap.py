"""COLMAP's models: cameras and poses of pictures, text or binary, beside a folder `images`.

Lengths have a unit of their own unless the model was aligned with measured places; `scale` gives its metres. Lenses
with distortion are moved to the pinhole camera of the same focal lengths by pycolmap's camera models. What the files
hold, `processing.captures.colmap_model` says, which reads them.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from processing.captures.capture import Capture
from processing.captures.colmap_model import ColmapCamera, find_model, read_model
from processing.captures.pictures import picture_reader
from processing.captures.undistortion import Undistorter
from processing.frame_order_ide3d import natural_key

__all__ = ["LOOKED_FOR", "NAME", "read", "recognise"]

NAME = "colmap"
LOOKED_FOR = "cameras.bin and images.bin (or .txt), there or in sparse/0, beside a folder images"


def recognise(path: Path) -> str | None:
    """Return the evidence for this format, or None."""
    found = find_model(path)
    return None if found is None else f"cameras{found[1]}, images{found[1]} in {found[0].name}"


def read(path: Path) -> Capture:
    """Read cameras, poses and names of the registered pictures, in natural order of the names."""
    model, ending = find_model(path)
    cameras, images = read_model(model, ending)
    images.sort(key=lambda image: natural_key(image.name))
    pictures = _find_pictures(path, model)
    files = [pictures / image.name for image in images]
    if missing := [file.name for file in files if not file.exists()]:
        raise FileNotFoundError(
            f"{pictures} lacks {len(missing)} of {len(files)} pictures of the model, such as {missing[0]}. Copy them."
        )
    numbers = [image.camera for image in images]
    used = [cameras[number] for number in numbers]
    sizes = {camera.size for camera in used}
    if len(sizes) > 1:
        raise ValueError(
            f"{model}: pictures must have one size, got {sorted(sizes)} (height, width). Split the model."
        )
    is_straight = all(camera.is_straight for camera in used)
    others = sorted(place.name for place in model.parent.glob("[0-9]*")) if model.name == "0" else []
    return Capture(
        format=NAME,
        path=path,
        frame_names=tuple(Path(image.name).with_suffix("").as_posix() for image in images),
        read_frames=_straightened(numbers, cameras, picture_reader(files)),
        intrinsics=np.stack([camera.intrinsics for camera in used]),
        camera_size=sizes.pop(),
        camera_to_world=np.linalg.inv(np.stack([image.world_to_camera for image in images])),
        is_metric=False,
    ).with_notes(
        "" if is_straight else "pictures are distorted; they are moved to a pinhole camera of the same focal lengths.",
        f"of the models {', '.join(others)} the first is read." if len(others) > 1 else "",
    )


def _find_pictures(path: Path, model: Path) -> Path:
    places = [path, *model.parents[:3]] if model != path else [path, *path.resolve().parents[:2]]
    for place in places:
        if (place / "images").is_dir():
            return place / "images"
    raise FileNotFoundError(f"{path} has no folder `images` beside its model. Put the pictures of the model there.")


def _straightened(
    numbers: Sequence[int],
    cameras: dict[int, ColmapCamera],
    read_frames: Callable[[Sequence[int]], Iterator[np.ndarray]],
) -> Callable[[Sequence[int]], Iterator[np.ndarray]]:
    def read(indices: Sequence[int]) -> Iterator[np.ndarray]:
        movers: dict[int, Undistorter] = {}
        for index, picture in zip(indices, read_frames(indices), strict=True):
            camera = cameras[numbers[index]]
            if not camera.is_straight:
                if numbers[index] not in movers:
                    movers = {numbers[index]: _undistorter(camera)}
                picture = movers[numbers[index]].move_picture(picture)
            yield picture

    return read


def _undistorter(camera: ColmapCamera) -> Undistorter:
    """Return what moves pictures of this lens to a pinhole camera."""
    try:
        import pycolmap
    except ImportError as error:
        raise ImportError(
            f"Pictures of the camera model {camera.model} are undistorted by pycolmap: `pip install pycolmap`, or run "
            "`colmap image_undistorter` and open its output."
        ) from error
    bent = pycolmap.Camera(
        model=camera.model, width=camera.size[1], height=camera.size[0], params=camera.parameters.tolist()
    )
    focal, centre = camera.intrinsics[[0, 1], [0, 1]], camera.intrinsics[:2, 2] + 0.5

    def lens(points: np.ndarray) -> np.ndarray:
        rays = np.concatenate([points, np.ones((len(points), 1))], 1)
        return (bent.img_from_cam(rays) - centre) / focal

    return Undistorter(lens, camera.intrinsics, camera.size)
