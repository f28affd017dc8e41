"""Places of ScanNet that benchmarks evaluate on: a model that has seen them in training is not measured by them."""

import re
from collections.abc import Iterable

__all__ = ["EVALUATED", "find_places", "list_benchmarks"]

# A scan is sceneNNNN_MM: the MM-th scan of the place NNNN. All scans of a place show the same rooms.
_SCAN = re.compile(r"(?<![A-Za-z0-9])scene(\d{4})(?:_\d\d)?(?!\d)")


def _read_numbers(text: str) -> frozenset[int]:
    return frozenset(map(int, text.split()))


# ScanNet's list scannetv2_val.txt: 312 scans of 142 places.
_SCANNET_VALIDATION = _read_numbers(
    """
    11 15 19 25 30 46 50 63 64 77 81 84 86 88 95 100 131 139 144 146 149 153 164 169 187 193 196 203 207 208 217
    221 222 231 246 249 251 256 257 277 278 300 304 307 314 316 328 329 334 338 342 343 351 353 354 355 356 357
    377 378 382 389 406 412 414 423 426 427 430 432 435 441 458 461 462 474 488 490 494 496 500 518 527 535 549
    550 552 553 558 559 565 568 574 575 578 580 583 591 593 595 598 599 606 607 608 609 616 618 621 629 633 643
    644 645 647 648 651 652 653 655 658 660 663 664 665 670 671 678 684 685 686 689 690 693 695 696 697 699 700
    701 702 704
    """
)
# Scenes of SQA3D's test split: 67, all of them in the list above.
_SQA3D_TEST = _read_numbers(
    """
    15 25 46 50 84 86 100 139 146 153 169 203 208 221 222 231 246 256 257 278 300 338 351 353 354 355 377 378
    382 389 406 412 414 426 427 435 458 490 494 496 535 565 574 575 578 583 591 593 606 607 616 618 621 633 644
    645 651 653 664 678 685 686 689 690 700 702 704
    """
)
# Scenes of VSI-Bench from ScanNet: 88, all of them in the first list.
_VSI_BENCH = _read_numbers(
    """
    25 30 46 50 77 81 86 88 95 100 144 146 149 153 164 169 193 196 203 207 208 221 222 231 246 251 277 304 307
    316 328 338 353 354 356 357 378 412 426 435 441 458 461 462 474 488 494 496 500 518 550 553 565 568 574 575
    580 591 593 598 608 616 621 629 633 643 645 647 648 651 653 658 663 664 665 671 684 685 686 693 695 696 697
    699 700 701 702 704
    """
)

EVALUATED = {
    "ScanNet validation (ScanRefer, Multi3DRefer, Scan2Cap, ScanQA)": _SCANNET_VALIDATION,
    "SQA3D test": _SQA3D_TEST,
    "VSI-Bench": _VSI_BENCH,
}


def find_places(texts: Iterable[str]) -> set[int]:
    """Return the numbers of ScanNet's places that texts name: 11 for `scans/scene0011_01.mp4`.

    Args:
        texts: Paths, ids or names of scenes.
    """
    return {int(number) for text in texts for number in _SCAN.findall(text)}


def list_benchmarks(place: int) -> list[str]:
    """Return the keys of `EVALUATED` that a place belongs to."""
    return [name for name, places in EVALUATED.items() if place in places]
