"""Write rendered rooms as a folder in the public layout, with every kind of file that the readers know.

    ide3d rooms export outputs/benchmark_rooms --num-scenes 4

The folder serves to see the layout and to try everything that reads it. Its questions are generated too, so scores on
it say nothing about a benchmark. Scenes are called room0000_00 and so on, which sets them apart from ScanNet's.
"""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from processing.argument_rules import as_path
from processing.benchmarks.export.annotations import RoomScene, llava_records, rounded_box
from processing.benchmarks.export.files import RoomWriter, write_infos, write_parquet_rows
from processing.benchmarks.export.vsi import revsi_records, vsi_records
from processing.benchmarks.readers.tasks import SPATIAL_TASKS, TASKS, Layout
from processing.rooms.generate import make_room
from processing.rooms.sizes import check_room_sizes
from processing.writing import whole_folder, write_json

__all__ = ["export_rooms"]

_SPLITS = {"train": "train", "val": "validation", "test": "test"}


def export_rooms(
    target: str | Path, *, num_scenes: int = 4, seed: int = 0, image_size: int = 126, num_frames: int = 8
) -> Path:
    """Write rooms of each split (train, val, test) and the samples of all tasks about them.

    Args:
        target: Folder to make; must not hold anything yet.
        num_scenes: Rooms per split.
        seed: Number of the family of rooms.
        image_size: Height and width of frames and depth, pixels.
        num_frames: Frames per room, named as every tenth frame of a scan.

    Returns:
        Path of the folder.

    Raises:
        FileExistsError: The target exists and is not empty.
        TypeError: A count or the seed is no integer, or the target no path.
        ValueError: A count below 1, images too small for a room, or any of them too large.
    """
    num_scenes, seed, image_size, num_frames = check_room_sizes(num_scenes, seed, image_size, num_frames)
    target = as_path(target, "target")
    with whole_folder(target) as unfinished:
        _write_rooms(Layout(unfinished), num_scenes, seed, image_size, num_frames)
    return target


def _write_rooms(layout: Layout, num_scenes: int, seed: int, image_size: int, num_frames: int) -> None:
    """Fill the folder; see `export_rooms`."""
    selected, number = [], 0
    progress = tqdm(total=num_scenes * len(_SPLITS), desc="rooms")
    for split, room_split in _SPLITS.items():
        records: dict[str, list[dict]] = {task: [] for task in TASKS}
        gt, pred, infos = {}, {}, []
        for index in range(num_scenes):
            room, row = make_room(room_split, seed, index, image_size, num_frames)
            writer = RoomWriter(layout, f"scannet/room{number:04d}_00", row, turn=0.3 + 0.7 * number)
            infos.append(writer.write_frames())
            pred[writer.scene_id] = writer.write_proposals(split)
            gt[writer.scene_id] = [rounded_box(thing["box"]) for thing in row["objects"]]
            writer.write_teacher()
            selected.append(writer.select_frames())
            scene = RoomScene(writer.scene_id, row, writer.instance_ids, np.array(pred[writer.scene_id]))
            for task in TASKS:
                if task not in SPATIAL_TASKS and split in TASKS[task].splits and TASKS[task].has_prompt:
                    records[task] += llava_records(task, split, scene)
            if split in TASKS["vsibench"].splits:
                writer.write_video(f"vsibench/{writer.scene_id}")
                writer.write_video(f"revsi/32_frame/{writer.scene_id.split('/')[1]}", 32)
                area = room.shell.width * room.shell.depth
                asked = vsi_records(scene, area, np.random.default_rng((seed, number)))
                records["vsibench"] += asked
                records["revsi"] += revsi_records(asked)
            number += 1
            progress.update()
        write_infos(layout, split, infos)
        write_json(layout.boxes(split, "gt"), gt, indent=None)
        write_json(layout.boxes(split, "pred"), pred, indent=None)
        _write_records(layout, split, records)
    progress.close()
    write_json(layout.selected_frames, selected, indent=None)


def _write_records(layout: Layout, split: str, records: dict[str, list[dict]]) -> None:
    for task, listed in records.items():
        if not listed:
            continue
        numbered = [{"id": number, **record} for number, record in enumerate(listed)]
        path = layout.annotations(TASKS[task], "32_frame" if task == "revsi" else split)[0]
        if task in SPATIAL_TASKS:
            write_parquet_rows(path, numbered)
        else:
            write_json(path, numbered, indent=None)


if __name__ == "__main__":
    from processing.moved import run_command

    run_command("rooms", "export")
