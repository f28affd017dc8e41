"""Training samples of chats from files; their media are opened when a sample is asked for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from processing.argument_rules import as_path
from processing.chats import load_chats, read_media
from processing.chats.loading import unpack_chat
from processing.chats.media import read_pictures
from processing.frame_order_ide3d import check_count

__all__ = ["ChatDataset", "read_sample"]


class ChatDataset(Dataset):
    """Samples of files of chats as `IDE3DDataCollator` takes them.

    Every row is checked at birth, and kept in a memory-mapped table on disk: memory holds the samples that are asked
    for. A sample is `messages`, the `frames` of its video or its `images`, and the geometry of a scan.

    Args:
        files: Paths of files that end with .json, .jsonl or .parquet.
        media_dir: Folder that relative paths of media begin in. Default: for each file its own folder.
        num_frames: Number of frames of a video, at most.
        has_geometry: Whether samples of scans bring depth, intrinsics and poses.
        skip_invalid_poses: Whether to leave out frames whose pose is not finite instead of raising an error.
        cache_dir: Folder where `datasets` keeps the table. Default: its own cache.

    Raises:
        TypeError: If an argument is of another kind.
        FileNotFoundError: If a file does not exist.
        ValueError: If a file is broken, or a row is no chat; see `processing.chats.load_chats`.
    """

    def __init__(
        self,
        files: Sequence[str],
        media_dir: str | Path | None = None,
        *,
        num_frames: int = 32,
        has_geometry: bool = True,
        skip_invalid_poses: bool = False,
        cache_dir: str | Path | None = None,
    ):
        check_count(num_frames)
        self.media_dir = None if media_dir is None else as_path(media_dir, "media_dir")
        self.options = {
            "num_frames": num_frames,
            "has_geometry": has_geometry,
            "skip_invalid_poses": skip_invalid_poses,
        }
        self.rows = load_chats(files, cache_dir=cache_dir)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Open the media of a chat and put the sample together."""
        return read_sample(self.rows[index], self.media_dir, **self.options)


def read_sample(row: dict[str, str], media_dir: Path | None, **options: Any) -> dict[str, Any]:
    """Return the sample of a row of `load_chats`; see `ChatDataset`.

    Raises:
        FileNotFoundError: If a file or folder of its media does not exist. It names the row, as ValueError does.
        ValueError: If media cannot be read.
    """
    chat = unpack_chat(row)
    folder = media_dir or row["folder"]
    sample: dict[str, Any] = {"messages": chat.messages, "scene_id": row["where"]}
    try:
        if chat.video is not None:
            sample["scene_id"] = chat.video if isinstance(chat.video, str) else row["where"]
            sample |= read_media(chat.video, folder, **options)
        if chat.images:
            sample["images"] = read_pictures(chat.images, folder)
    except (FileNotFoundError, ValueError) as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f"{row['where']}: {error} `ide3d doctor` lists all such rows of a file.") from error
    return sample
