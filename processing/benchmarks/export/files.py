"""The files of one rendered room in the public layout, beside its annotations."""

import pickle
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
from PIL import Image
from scipy import sparse

from processing.benchmarks.export.annotations import rounded_box
from processing.benchmarks.readers.files import boxes_from_masks
from processing.benchmarks.readers.tasks import Layout
from processing.frame_order_ide3d import find_uniform_indices
from processing.image_opening_ide3d import open_image

__all__ = ["RoomWriter", "write_infos", "write_parquet_rows"]

_FRAME_STEP = 10  # posed_images keeps every tenth frame of a scan.
_VOXEL = 0.1  # Metres.
_TEACHER_GRID = 16  # Patches per side, one of the three grids that teacher stores have.
_POINT_STRIDE = 3  # Pixels between points of the cloud.
_GOOD_SHARE, _BAD_SHARE = 0.9, 0.4  # Share of an object's length that a proposal covers.
_BAD_EVERY = 5  # One object in five is proposed badly, so that some have no box of IoU 0.5.


def _decode(entry: dict) -> np.ndarray:
    with open_image(entry) as image:
        return np.asarray(image)


class RoomWriter:
    """Writer of one room.

    The files keep a world frame that is turned and shifted, as scans are before their alignment; EmbodiedScan's
    axis_align_matrix undoes it. Boxes and points are in the aligned frame.

    Args:
        layout: Paths of the benchmark folder.
        scene_id: Name such as "scannet/room0000_00".
        row: Row as `processing.rooms.generate.make_room` gives it.
        turn: Turn of the world frame about the vertical, radians.
    """

    def __init__(self, layout: Layout, scene_id: str, row: dict, turn: float):
        self.layout, self.scene_id, self.row = layout, scene_id, row
        self.frames, self.depth, self.instance_ids = (
            np.stack([_decode(entry) for entry in row[name]]) for name in ("frames", "depth", "instance_ids")
        )
        self.names = [f"{_FRAME_STEP * index:05d}" for index in range(len(self.frames))]
        self.intrinsics = np.eye(4)
        self.intrinsics[:3, :3] = row["intrinsics"][0]
        self.poses = np.asarray(row["camera_to_world"], np.float64)
        self.align = np.eye(4)
        self.align[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        self.align[:3, 3] = [turn, -2.0, 0.5]

    def write_frames(self) -> dict:
        """Write pictures, depth, poses and cameras; return the scene's item of EmbodiedScan's file."""
        folder = self.layout.frames(self.scene_id)
        folder.mkdir(parents=True)
        raw_poses = np.linalg.inv(self.align) @ self.poses
        for name, frame, depth, pose in zip(self.names, self.frames, self.depth, raw_poses, strict=True):
            Image.fromarray(frame).save(folder / f"{name}.jpg", quality=95)
            depth_millimetres = np.round(depth * 1000).astype(np.uint16)
            Image.fromarray(depth_millimetres).save(folder / f"{name}.png")
            np.savetxt(folder / f"{name}.txt", pose, fmt="%.6f")
        for name in ("intrinsic.txt", "depth_intrinsic.txt"):
            np.savetxt(folder / name, self.intrinsics, fmt="%.6f")
        return {
            "sample_idx": self.scene_id,
            "images": [{"img_path": f"scannet/posed_images/{folder.name}/{name}.jpg"} for name in self.names],
            "axis_align_matrix": self.align,
            "depth_cam2img": self.intrinsics,
        }

    def points(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the visible points (P, 3) in the aligned world, their colours (P, 3) and objects (P,)."""
        step = slice(None, None, _POINT_STRIDE)
        size = self.depth.shape[1:]
        v, u = (grid[step, step] for grid in np.meshgrid(*map(np.arange, size), indexing="ij"))
        rays = np.linalg.inv(self.intrinsics[:3, :3]) @ np.stack([u.ravel(), v.ravel(), np.ones(u.size)])
        local = rays[None] * self.depth[:, step, step].reshape(len(self.depth), 1, -1)
        world = self.poses[:, :3, :3] @ local + self.poses[:, :3, 3:]
        ids = self.instance_ids[:, step, step].reshape(-1)
        return world.transpose(0, 2, 1).reshape(-1, 3), self.frames[:, step, step].reshape(-1, 3), ids

    def write_proposals(self, split: str) -> list[list[float]]:
        """Write the point cloud and proposals as masks over its points; return the proposals' boxes."""
        corners, proposed = {}, {}
        for number, thing in enumerate(self.row["objects"]):
            share = _BAD_SHARE if number % _BAD_EVERY == _BAD_EVERY - 1 else _GOOD_SHARE
            box = np.asarray(thing["box"], np.float64)
            corners[thing["id"]] = _corners(box)
            # A proposal holds the lower part of its object.
            height = share * box[5]
            proposed[thing["id"]] = _corners([*box[:2], box[2] + (height - box[5]) / 2, *box[3:5], height])
        seen, colours, seen_ids = self.points()
        # Corners stand for the parts that no frame shows, so that the points of an object span its box.
        extra = np.concatenate([*corners.values(), *proposed.values()])
        vertices = np.concatenate([seen, extra]).astype(np.float32)
        ids = np.concatenate([seen_ids, np.repeat([*corners, *proposed], 8)]).astype(np.int64)
        self._write_cloud(
            split, vertices, np.concatenate([colours, np.zeros((len(extra), 3), np.uint8)]), ids, corners
        )
        tops = {number: points[:, 2].max() + 1e-5 for number, points in proposed.items()}
        masks = [(ids == number) & (vertices[:, 2] <= top) for number, top in tops.items()]
        masks = np.array([*masks, np.isin(ids, [1, 2])])  # The last one takes two objects for one.
        boxes = boxes_from_masks(masks, vertices)
        self._write_masks(masks)
        return [rounded_box(box) for box in boxes]

    def _write_cloud(self, split, vertices, rgb, ids, corners) -> None:
        path = self.layout.point_clouds(self.scene_id, split)[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        cloud = {
            "xyz": vertices,
            "rgb": rgb,
            "normal": np.zeros_like(vertices, np.float32),
            "sem_labels": ids,
            "instance_ids": ids - 1,
            "aabb_obj_ids": np.array([number - 1 for number in corners]),
            "aabb_corner_xyz": np.array(list(corners.values()), np.float32).reshape(-1, 8, 3),
        }
        torch.save(cloud, path)

    def _write_masks(self, masks: np.ndarray) -> None:
        path = self.layout.masks(self.scene_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        sparse.save_npz(path, sparse.csr_matrix(masks))

    def write_teacher(self) -> None:
        """Write teacher features (1, V, patches, 4).

        They are the middle of each patch as a point in the first camera, metres, and 1 / depth.
        """
        size = self.depth.shape[1]
        at = ((np.arange(_TEACHER_GRID) + 0.5) * size / _TEACHER_GRID).astype(int)
        v, u = (grid.ravel() for grid in np.meshgrid(at, at, indexing="ij"))
        rays = np.linalg.inv(self.intrinsics[:3, :3]) @ np.stack([u, v, np.ones_like(u)])
        first_from_camera = np.linalg.inv(self.poses[0]) @ self.poses
        local = rays[None] * self.depth[:, v, u][:, None]
        points = first_from_camera[:, :3, :3] @ local + first_from_camera[:, :3, 3:]
        features = np.concatenate([points, 1 / local[:, 2:]], axis=1).transpose(0, 2, 1)
        path = self.layout.teacher(self.scene_id)
        path.parent.mkdir(parents=True)
        np.save(path, features[None].astype(np.float32))

    def select_frames(self) -> dict:
        """Return the scene's entry of the maximum-coverage file, its frames in greedy order."""
        points, _, _ = self.points()
        cells = np.floor(points / _VOXEL).astype(int).reshape(len(self.frames), -1, 3)
        sets = [set(map(tuple, frame)) for frame in cells]
        union, left, order, gains = set(), dict(enumerate(sets)), [], []
        while left:
            best = max(left, key=lambda index: len(left[index] - union))
            gain = len(left[best] - union)
            if not gain:
                break
            union |= left.pop(best)
            order.append(best)
            gains.append(gain)
        folder = f"scannet/posed_images/{self.layout.frames(self.scene_id).name}"
        return {
            "video_id": self.scene_id,
            "frame_files": [f"{folder}/{self.names[index]}.jpg" for index in order],
            "voxel_nums": gains,
            "num_all_voxels": len(set().union(*sets)),
            "num_select_voxels": len(union),
        }

    def write_video(self, scene_id: str, num_frames: int | None = None) -> None:
        """Write the frames, at most `num_frames`, as a video file; see `is_video_file`."""
        path = self.layout.video(scene_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = (side - side % 2 for side in self.frames.shape[1:3])  # The codec wants even sides.
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=Fraction(2))
            stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 4_000_000
            chosen = find_uniform_indices(len(self.frames), num_frames or len(self.frames))
            for frame in self.frames[chosen]:
                picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode())


def _corners(box) -> np.ndarray:
    signs = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    return np.asarray(box[:3]) + signs * np.asarray(box[3:])


def write_infos(layout: Layout, split: str, items: list[dict]) -> None:
    """Write EmbodiedScan's pickle of a split: arrays and builtins."""
    path = layout.infos(split)[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps({"metainfo": {"DATASET": "rooms"}, "data_list": items}))


def write_parquet_rows(path: Path, rows: list[dict]) -> None:
    """Write the parquet file of VSI-Bench or ReVSI.

    `id` is a number, `options` are texts, the other columns text.
    """
    kinds = {"id": pa.int64(), "options": pa.list_(pa.string())}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in rows[0]])
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema=schema), path)
