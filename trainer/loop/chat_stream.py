"""Files of chats as an endless stream of a training: no table on disk, and no row in memory twice."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from processing import IDE3DProcessor
from processing.argument_rules import as_path
from processing.chats import stream_chats
from processing.frame_order_ide3d import check_count
from trainer.data.chat_samples import read_sample
from trainer.data_collator import IDE3DDataCollator

__all__ = ["ChatStream", "StreamCollator"]

_READ = 64  # rows that are taken from the stream at a time


class ChatStream(IterableDataset):
    """Endless stream of the rows of files of chats, each lap in its own order.

    A lap has each row once. The order mixes the files, and rows that lie within `buffer_size` of each other. It
    follows from seed and lap alone, however many workers read: each takes whole batches in turn. Media are opened by
    `StreamCollator`: processes and workers pass over the rows of others without them.

    Args:
        files: Paths of files that end with .json, .jsonl or .parquet.
        media_dir: Folder that relative paths of media begin in. Default: for each file its own folder.
        batch: Number of rows in a batch of all processes.
        seed: Seed of the order.
        buffer_size: Number of rows that are shuffled at a time; memory holds their text.
        num_frames: Number of frames of a video, at most.
        has_geometry: Whether samples of scans bring depth, intrinsics and poses.
        skip_invalid_poses: Whether to leave out frames whose pose is not finite instead of raising an error.

    Attributes:
        skipped_batches: Number of batches at the beginning that come as None, as a resumed training throws them away.

    Raises:
        TypeError: If an argument is of another kind.
        FileNotFoundError: If a file does not exist.
        ValueError: If there is no file or a count is below 1; and while rows are read, if a file or row is broken.
    """

    def __init__(
        self,
        files: Sequence[str],
        media_dir: str | Path | None = None,
        *,
        batch: int,
        seed: int = 0,
        buffer_size: int = 10_000,
        num_frames: int = 32,
        has_geometry: bool = True,
        skip_invalid_poses: bool = False,
    ):
        for name, count in {"batch": batch, "buffer_size": buffer_size, "num_frames": num_frames}.items():
            check_count(count, name)
        self.media_dir = None if media_dir is None else as_path(media_dir, "media_dir")
        self.batch, self.seed, self.buffer_size = batch, seed, buffer_size
        self.options = {
            "num_frames": num_frames,
            "has_geometry": has_geometry,
            "skip_invalid_poses": skip_invalid_poses,
        }
        self.rows = stream_chats(files)
        self.skipped_batches = 0

    def __iter__(self) -> Iterator[dict[str, str] | None]:
        """Yield the rows of this worker's batches, without end."""
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        for index, row in enumerate(self._walk()):
            number = index // self.batch
            if number % workers == worker:
                yield None if number < self.skipped_batches else row

    def read(self, row: dict[str, str]) -> dict[str, Any]:
        """Return the sample of a row, its media opened."""
        return read_sample(row, self.media_dir, **self.options)

    def _walk(self) -> Iterator[dict[str, str]]:
        for lap in itertools.count():
            rows = self.rows.shuffle(seed=hash((self.seed, lap)) % 2**32, buffer_size=self.buffer_size)
            for columns in rows.iter(_READ):  # not `iter(rows)`, which shares out files among workers
                yield from (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


class StreamCollator(IDE3DDataCollator):
    """`IDE3DDataCollator` of the rows of a `ChatStream`; it takes other samples as they are.

    Args:
        processor: Processor of the model.
        stream: Stream whose rows it opens.
        **options: See `IDE3DDataCollator`.
    """

    def __init__(self, processor: IDE3DProcessor, stream: ChatStream, **options: Any):
        super().__init__(processor, **options)
        self.stream = stream

    def __call__(self, samples: Sequence[Mapping[str, Any] | None]) -> dict[str, Tensor]:
        """Collate; a batch that is thrown away is empty."""
        if samples and all(sample is None for sample in samples):
            return {}
        return super().__call__([self.stream.read(sample) if "chat" in sample else sample for sample in samples])
