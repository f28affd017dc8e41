"""Several data sets as one: in which shares, and whether a batch holds samples of one of them or of all."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler

from trainer.training_arguments import IDE3DTrainingArguments


class MixtureDataset(Dataset):
    """Data sets one after the other, with the share of an epoch of each.

    An epoch has as many samples as all data sets together. A share above its size repeats a data set, after all of its
    samples were drawn; one below leaves samples for the next epochs. A share of less than a sample an epoch is drawn
    once in several epochs. `IDE3DTrainer` draws accordingly.

    Args:
        datasets: Data sets by name.
        weights: Relative shares by name; default: the sizes, so that every sample is drawn once.

    Raises:
        ValueError: If there is no data set, an empty one, another name among the weights, or a weight that is not
            positive or not finite.

    Example:
        >>> mixture = MixtureDataset({"questions": ["a", "b"], "grounding": ["c"]}, {"questions": 1, "grounding": 1})
        >>> len(mixture), mixture[2]
        (3, 'c')
    """

    def __init__(self, datasets: Mapping[str, Sequence[Any]], weights: Mapping[str, float] | None = None):
        if not datasets or not all(map(len, datasets.values())):
            sizes = {name: len(dataset) for name, dataset in datasets.items()}
            raise ValueError(f"A mixture needs data sets with at least one sample each, got {sizes}.")
        if weights is not None:
            is_right = all(0 < weight < math.inf for weight in weights.values())
            if set(weights) != set(datasets) or not is_right:
                names = list(datasets)
                raise ValueError(f"weights must be positive and finite, one for each of {names}, got {dict(weights)}.")
        self.datasets = dict(datasets)
        self.sizes = [len(dataset) for dataset in self.datasets.values()]
        self.weights = list(map(float, self.sizes if weights is None else (weights[name] for name in datasets)))

    def __len__(self) -> int:
        return sum(self.sizes)

    def __getitem__(self, index: int) -> Any:
        place = index + len(self) if index < 0 else index
        for dataset in self.datasets.values():
            if 0 <= place < len(dataset):
                return dataset[place]
            place -= len(dataset)
        raise IndexError(f"The mixture has {len(self)} samples, got index {index}.")

    def draws(self, epoch: int = 0) -> list[int]:
        """Return the number of samples of each data set in an epoch.

        The shares are rounded so that the sum is right. A later epoch makes up for what rounding takes: over the
        epochs the shares are exact.
        """
        before, after = self.drawn_before(epoch), self.drawn_before(epoch + 1)
        return [new - old for new, old in zip(after, before, strict=True)]

    def drawn_before(self, epoch: int) -> list[int]:
        """Return the number of samples of each data set in all epochs before this one."""
        exact = [len(self) * weight / sum(self.weights) for weight in self.weights]
        whole = [int(value) for value in exact]
        counts = [epoch * count for count in whole]
        owed = [0.0] * len(exact)
        for _ in range(epoch):
            owed = [rest + value - count for rest, value, count in zip(owed, exact, whole, strict=True)]
            for _ in range(len(self) - sum(whole)):
                place = max(range(len(owed)), key=owed.__getitem__)
                counts[place] += 1
                owed[place] -= 1
        return counts


class MixtureSampler(Sampler[int]):
    """Indices of a mixture's epoch.

    Args:
        mixture: Its data sets and shares.
        block: Samples of one data set in a row, a batch of all processes; 1 mixes freely. A data set's last block is
            filled up with its next samples, and each data set has at least one block an epoch.
        seed: Order of the samples.
    """

    def __init__(self, mixture: MixtureDataset, block: int = 1, seed: int = 0):
        self.mixture = mixture
        self.block = block
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; seed and epoch alone give the order, also of a resumed run."""
        self.epoch = epoch

    def _num_blocks(self) -> list[int]:
        # The same in every epoch: Trainer counts an epoch's steps once.
        return [max(1, -(-draws // self.block)) for draws in self.mixture.draws()]

    def __len__(self) -> int:
        return len(self.mixture) if self.block == 1 else self.block * sum(self._num_blocks())

    def _positions(self) -> list[range]:
        """Return the epoch's positions in the endless row of permutations of each data set."""
        if self.block == 1:
            starts, ends = self.mixture.drawn_before(self.epoch), self.mixture.drawn_before(self.epoch + 1)
        else:
            counts = [count * self.block for count in self._num_blocks()]
            starts, ends = ([epoch * count for count in counts] for epoch in (self.epoch, self.epoch + 1))
        return [range(start, end) for start, end in zip(starts, ends, strict=True)]

    def __iter__(self) -> Iterator[int]:
        blocks: list[list[int]] = []
        first = 0
        for source, (size, positions) in enumerate(zip(self.mixture.sizes, self._positions(), strict=True)):
            drawn = self._draw(source, size, positions)
            blocks += [
                [first + index for index in drawn[at : at + self.block]] for at in range(0, len(drawn), self.block)
            ]
            first += size
        generator = torch.Generator().manual_seed(hash((self.seed, self.epoch)) % 2**63)
        for place in torch.randperm(len(blocks), generator=generator).tolist():
            yield from blocks[place]

    def _draw(self, source: int, size: int, positions: range) -> list[int]:
        drawn: list[int] = []
        for lap in range(positions.start // size, -(-positions.stop // size)):
            generator = torch.Generator().manual_seed(hash((self.seed, source, lap)) % 2**63)
            order = torch.randperm(size, generator=generator).tolist()
            drawn += order[max(positions.start - lap * size, 0) : max(positions.stop - lap * size, 0)]
        return drawn


def build_mixture_sampler(
    mixture: MixtureDataset, args: IDE3DTrainingArguments, per_device_batch_size: int
) -> MixtureSampler:
    """Build the sampler of a training on a mixture.

    Args:
        mixture: Mixture that is trained on.
        args: Arguments of the training.
        per_device_batch_size: Samples of a batch in each process.

    Raises:
        ValueError: If the arguments ask for another order than a random one.
    """
    if args.train_sampling_strategy != "random":
        raise ValueError(
            f"train_sampling_strategy={args.train_sampling_strategy!r}: a MixtureDataset is drawn at random, "
            "by its shares. Leave the strategy out."
        )
    block = per_device_batch_size * args.world_size if args.mixture_batches == "grouped" else 1
    return MixtureSampler(mixture, block, args.seed if args.data_seed is None else args.data_seed)


__all__ = ["MixtureDataset", "MixtureSampler", "build_mixture_sampler"]
