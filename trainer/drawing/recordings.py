"""RRD files of a drawing for the viewer of rerun: frames over time, regions, boxes, cameras and points."""

from pathlib import Path

import numpy as np
from PIL import Image

from trainer.drawing.drawing import Drawing
from trainer.drawing.frames import draw_frame
from trainer.drawing.spaces import Space, list_spaces, mark_colour

__all__ = ["check_recorder", "record"]

POINT_RADIUS = 0.01  # metres


def check_recorder() -> None:
    """Raise ImportError unless rerun is installed."""
    try:
        import rerun

        if not hasattr(rerun, "RecordingStream"):
            raise ImportError("the package `rerun` that is installed is another one")
    except ImportError as error:
        raise ImportError(f'.rrd files need rerun-sdk: pip install "ide3d[rerun]". ({error})') from error


def record(drawing: Drawing, path: Path) -> None:
    """Write a recording.

    Frames, with what is marked in them, lie on the timeline `frame`. Each space has an entity of its own: the world,
    or without poses the camera of each frame.

    Raises:
        ImportError: If rerun is not installed.
        OSError: If the file cannot be written.
    """
    check_recorder()
    import rerun

    stream = rerun.RecordingStream("ide3d", recording_id=None)
    stream.save(path)
    stream.log("title", rerun.TextDocument("\n\n".join((drawing.title, *drawing.notes))), static=True)
    for space in list_spaces(drawing):
        _record_space(stream, space, drawing)
    for frame in range(len(drawing.frames)):
        stream.set_time("frame", sequence=frame)
        picture = np.asarray(draw_frame(drawing, frame))
        stream.log("frames", rerun.Image(picture).compress(jpeg_quality=90))
    stream.flush()
    stream.disconnect()


def _record_space(stream, space: Space, drawing: Drawing) -> None:
    import rerun

    root = "world" if space.frame is None else f"camera_{space.frame}"
    if len(space.positions):
        points = rerun.Points3D(space.positions, colors=space.colours, radii=POINT_RADIUS)
        stream.log(f"{root}/points", points, static=True)
    for box in space.boxes:
        lines = rerun.LineStrips3D(
            list(box.edges), colors=[mark_colour(box.number)] * 12, labels=[box.label], show_labels=True
        )
        stream.log(f"{root}/boxes/{box.number + 1}", lines, static=True)
    if len(space.cameras) > 1:
        path = rerun.LineStrips3D([np.stack([camera.pose[:3, 3] for camera in space.cameras])])
        stream.log(f"{root}/camera_path", path, static=True)
    height, width = drawing.frames.shape[1:3]
    for camera in space.cameras:
        name = f"{root}/cameras/{camera.frame}"
        stream.log(name, rerun.Transform3D(translation=camera.pose[:3, 3], mat3x3=camera.pose[:3, :3]), static=True)
        if drawing.intrinsics is not None:
            view = rerun.Pinhole(
                image_from_camera=drawing.intrinsics[camera.frame],
                resolution=[width, height],
                camera_xyz=rerun.ViewCoordinates.RDF,
            )
            stream.log(f"{name}/view", view, static=True)
            picture = rerun.Image(np.asarray(Image.fromarray(drawing.frames[camera.frame]))).compress(jpeg_quality=80)
            stream.log(f"{name}/view", picture, static=True)
        else:
            stream.log(f"{name}/frame", rerun.LineStrips3D(list(camera.lines)), static=True)
