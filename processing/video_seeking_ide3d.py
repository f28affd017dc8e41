"""Which packets have to be decoded for the wanted frames of a video, where that surely gives the same frames."""

from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .video_entries_ide3d import Look, Rule, find_rule

__all__ = ["PacketTable", "Run", "plan_runs"]

MAX_SHARE = 0.9  # of the packets up to the last wanted frame: beyond it, all are decoded in their order


@dataclass
class PacketTable:
    """Packets of a video stream in the order of the file: 25 bytes each.

    Seeking is exact under these rules; one packet that breaks them makes the whole file be decoded in its order.

    - Each packet is one whole picture that is shown, by its bits, and has a time of its own. None is empty, marked as
      corrupt or hidden by an edit list.
    - The first packet resets the decoder and is shown first. All that reset it (IDR pictures of H.264, IDR and CRA
      pictures of HEVC, key frames of VP8, VP9 and AV1, every packet of codecs without prediction) carry the same
      parameter sets as the first. No packet between them has others.
    - The decoder waits for as many pictures as the times ask for, so that none comes too late.

    A key frame is thus known by its own bits; the mark in the container does not count. Codecs without such a rule
    (MPEG-2, MPEG-4 and others) are decoded in their order.

    Args:
        rule (`Callable`, *optional*):
            Function that looks at a packet; None where nothing is sought.
        delay (`int`):
            Pictures that the decoder waits for before it shows one.
        shown (`array`):
            Times of showing, ticks.
        read (`array`):
            Times of decoding, ticks, by which containers are sought.
        sizes (`array`):
            Bytes of each packet.
        entries (`array`):
            Whether each packet resets the decoder, 0 or 1.
    """

    rule: Rule | None = None
    delay: int = 0
    shown: array = field(default_factory=lambda: array("q"))
    read: array = field(default_factory=lambda: array("q"))
    sizes: array = field(default_factory=lambda: array("q"))
    entries: array = field(default_factory=lambda: array("b"))
    _state: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, stream: Any) -> "PacketTable":
        """Return an empty table for PyAV's stream."""
        context = stream.codec_context
        try:
            rule = find_rule(context.name, context.extradata)
        except (IndexError, ValueError):  # cut parameter sets
            rule = None
        return cls(rule, context.reorder_depth or 0)

    def note(self, packet: Any) -> None:
        """Note a packet of PyAV; without a rule for it, nothing will be sought."""
        if self.rule is None:
            return
        look = self._look(packet)
        if look is None:
            self.rule = None
            return
        self.shown.append(packet.pts)
        self.read.append(packet.pts if packet.dts is None else packet.dts)  # Matroska begins without
        self.sizes.append(packet.size)
        self.entries.append(look.is_entry)

    def _look(self, packet: Any) -> Look | None:
        """Return what the bits of a packet say; None if it breaks a rule."""
        if not packet.size or packet.pts is None or packet.is_corrupt or packet.is_discard:
            return None
        if packet.has_sidedata("new_extradata") or packet.has_sidedata("param_change"):
            return None
        try:
            look = self.rule(memoryview(packet))
        except (IndexError, ValueError):  # sizes in the packet that disagree
            return None
        if look is None or not (self.entries or look.is_entry):
            return None
        if not self.entries:
            self._state = look.state
        is_known = look.state == self._state if look.is_entry else set(look.state) <= set(self._state)
        return look if is_known else None

    def is_packet(self, place: int, packet: Any) -> bool:
        """Return whether a packet is the one that was noted at a place."""
        return place < len(self.sizes) and (packet.pts, packet.size) == (self.shown[place], self.sizes[place])


@dataclass
class Run:
    """Part of a video that is decoded from one packet on.

    Args:
        start (`int`):
            Place of the packet that resets the decoder, in the order of the file.
        first (`int`):
            Index of the frame of that packet, in the order of showing.
        last (`int`):
            Index of the last frame that is wanted of this run.
    """

    start: int
    first: int
    last: int


def plan_runs(table: PacketTable, wanted: list[int]) -> tuple[list[Run], np.ndarray] | None:
    """Return the runs that give the wanted frames, and the times of all frames.

    Args:
        table ([`PacketTable`]):
            All packets.
        wanted (`list[int]`):
            Increasing indices of frames.

    Returns:
        `tuple[list[Run], np.ndarray]` or None: runs in the order of the file, the first of them from the first packet;
        and the times that the decoder must give, of shape `(frames,)`, int64 ticks. None where seeking is not surely
        exact, or saves too little.
    """
    if table.rule is None or not table.entries:
        return None
    shown = np.asarray(table.shown)
    order = np.argsort(shown, kind="stable")  # places of the packets by the time of their frames
    times = shown[order]
    waits = np.maximum.accumulate(order) - np.arange(len(order))  # for packets that a frame has to wait for
    if order[0] != 0 or not (np.diff(times) > 0).all() or waits.max() > table.delay:
        return None
    entries = np.flatnonzero(np.asarray(table.entries))
    ranks = np.argsort(order)  # index of the frame of each packet
    # From an entry on, the frames after its own are whole; frames that lead it need the entry before.
    if (np.diff(ranks[entries]) < 0).any():
        return None
    runs = [Run(0, 0, 0)]  # What a decoder learns from the first packet alone, it must know.
    for index in wanted:
        start = int(entries[np.searchsorted(ranks[entries], index, side="right") - 1])
        if start > order[index]:
            return None
        if start > order[runs[-1].last] + table.delay:  # not on the way
            runs.append(Run(start, int(ranks[start]), index))
        runs[-1].last = index
    decoded = sum(int(order[run.last]) + 1 + table.delay - run.start for run in runs)
    return (runs, times) if decoded <= MAX_SHARE * (order[wanted[-1]] + 1) else None
