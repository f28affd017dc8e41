"""A stream of chats gives each row once a lap, in one order for any number of workers and processes."""

import itertools

import pytest
from accelerate.data_loader import IterableDatasetShard
from chat_files import say, write_rows
from torch.utils.data import DataLoader
from training_samples import build_collator

from trainer.loop import ChatStream, StreamCollator

ROWS = 23


@pytest.fixture
def files(tmp_path):
    rows = [{"messages": say(f"Where is ball {number}?")} for number in range(ROWS)]
    return [
        str(write_rows(tmp_path / "a.jsonl", rows[:9])),
        str(write_rows(tmp_path / "b.json", rows[9:14])),
        str(write_rows(tmp_path / "c.parquet", rows[14:])),
    ]


def places(rows):
    return [None if row is None else row["where"] for row in rows]


def take(stream, count):
    return places(itertools.islice(stream, count))


def test_a_lap_has_each_row_once_in_an_order_of_its_own(files):
    laps = take(ChatStream(files, batch=4), 3 * ROWS)
    laps = [laps[start : start + ROWS] for start in range(0, len(laps), ROWS)]
    assert [len(set(lap)) for lap in laps] == [ROWS] * 3 and set(laps[0]) == set(laps[1]) == set(laps[2])
    assert laps[0] != sorted(laps[0]) and laps[0] != laps[1] != laps[2]


def test_the_order_follows_from_the_seed(files):
    orders = [take(ChatStream(files, batch=4, seed=seed, buffer_size=5), 2 * ROWS) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_read_the_batches_of_one_process(files, workers):
    batches = DataLoader(ChatStream(files, batch=4), batch_size=4, num_workers=workers, collate_fn=places)
    read = list(itertools.islice(batches, 12))
    assert sum(read, []) == take(ChatStream(files, batch=4), 48)


@pytest.mark.parametrize("workers", [0, 2])
def test_processes_share_out_the_rows(files, workers):
    """As accelerate does it: each process takes its part of every batch of all of them."""
    read = []
    for process in range(2):
        shard = IterableDatasetShard(ChatStream(files, batch=4), batch_size=2, num_processes=2, process_index=process)
        batches = DataLoader(shard, batch_size=2, num_workers=workers, collate_fn=places)
        read.append(list(itertools.islice(batches, 6)))
    assert [batch for step in zip(*read, strict=True) for place in step for batch in place] == take(
        ChatStream(files, batch=4), 24
    )
    first, second = ({place for batch in batches[:5] for place in batch} for batches in read)
    assert not first & second and len(first | second) == 20  # of the first lap


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_batches_come_empty_and_the_rest_as_before(files, workers):
    stream = ChatStream(files, batch=4)
    stream.skipped_batches = 5
    batches = list(itertools.islice(DataLoader(stream, batch_size=4, num_workers=workers, collate_fn=places), 9))
    assert batches[:5] == [[None] * 4] * 5
    assert sum(batches[5:], []) == take(ChatStream(files, batch=4), 36)[20:]


def test_the_collator_opens_rows_and_takes_samples(files):
    stream, given = ChatStream(files, batch=4), build_collator()
    collator = StreamCollator(given.processor, stream)
    row = next(iter(stream))
    batch = collator([row, {"messages": say("Why?")}])
    assert batch["input_ids"].equal(given([stream.read(row), {"messages": say("Why?")}])["input_ids"])
    assert collator([None, None]) == {}


def test_a_broken_row_stops_the_stream_by_its_place(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", [{"messages": say("Why?")}, {"messages": say("<video>Why?")}])
    with pytest.raises(ValueError, match="line 2 has more <video> placeholders"):
        take(ChatStream([str(path)], batch=1), 2)
