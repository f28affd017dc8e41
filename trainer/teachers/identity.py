"""Facts that all files of a store share: their teacher, and the model that they are for."""

from dataclasses import dataclass, fields
from pathlib import Path

from processing.regions import check_grid
from processing.token_grid import TokenGrid
from trainer.field_rules import check_choice, check_text
from trainer.geometry.checks import PROTOCOLS, Protocol
from trainer.teachers.protocol import GeometrySource, Teacher, check_source, check_teacher
from trainer.teachers.pseudo_rules import ALIGNMENTS, Alignment

__all__ = ["StoreIdentity"]


@dataclass(frozen=True)
class StoreIdentity:
    """Facts that all files of a store share.

    A model that is trained with them has to match.

    Args:
        teacher: Name of the teacher.
        version: Version of weights and code.
        licence: Licence of the weights.
        preprocessing: Way from frames to the teacher's input.
        protocol: Rule that pooled the patches.
        image_size: Height and width of the vision input that the token grid belongs to, in pixels.
        patch_size: Side of a patch of that grid in pixels.
        pool_stride: Patches per token and side of that grid. None, with the two above: no features.
        alignment: Alignment that the pseudo geometry needs, see `ALIGNMENTS`; None: no geometry.

    Raises:
        TypeError: If a fact is of another type.
        ValueError: If a text is empty, there is no such protocol or alignment, or the numbers make no grid. Also if
            there is neither a grid nor an alignment.
    """

    teacher: str
    version: str
    licence: str
    preprocessing: str
    protocol: Protocol | None
    image_size: tuple[int, int] | None
    patch_size: int | None
    pool_stride: int | None
    alignment: Alignment | None = None

    def __post_init__(self):
        for name in ("teacher", "version", "licence", "preprocessing"):
            check_text(f"`{name}`", getattr(self, name))
        check_choice("`protocol`", self.protocol, (*PROTOCOLS, None))
        check_choice("`alignment`", self.alignment, (*ALIGNMENTS, None))
        if self.alignment and self.image_size is None and self.patch_size is None and self.pool_stride is None:
            return
        if not isinstance(self.image_size, (tuple, list)):
            raise TypeError(f"`image_size` must be (height, width) in pixels, got {self.image_size!r:.100}.")
        grid = TokenGrid(tuple(self.image_size), self.patch_size, self.pool_stride)
        for name in ("image_size", "patch_size", "pool_stride"):
            object.__setattr__(self, name, getattr(grid, name))

    @classmethod
    def of(cls, teacher: Teacher, grid: TokenGrid, alignment: Alignment | None = None) -> "StoreIdentity":
        """Return the identity of the features of `teacher` for `grid`.

        Args:
            teacher: Teacher of the features.
            grid: Token grid of the model.
            alignment: Alignment of the geometry that the teacher gives too; None: it gives none.

        Raises:
            TypeError: If either is something else.
        """
        check_teacher(teacher)
        check_grid(grid)
        facts = (teacher.name, teacher.version, teacher.licence, teacher.preprocessing, teacher.protocol)
        return cls(*facts, grid.image_size, grid.patch_size, grid.pool_stride, alignment)

    @classmethod
    def of_source(cls, source: GeometrySource) -> "StoreIdentity":
        """Return the identity of the geometry of `source`, without features.

        Raises:
            TypeError: If it is something else.
        """
        check_source(source)
        facts = (source.name, source.version, source.licence, source.preprocessing)
        return cls(*facts, None, None, None, None, source.alignment)

    @property
    def has_features(self) -> bool:
        """Whether files hold features."""
        return self.image_size is not None

    @property
    def grid(self) -> TokenGrid:
        """Token grid of the features."""
        return TokenGrid(self.image_size, self.patch_size, self.pool_stride)

    def check_equal(self, wanted: "StoreIdentity", path: Path) -> None:
        """Raise ValueError unless the file at `path` is `wanted`; the message names all differences."""
        differences = [
            f"{field.name} {getattr(self, field.name)!r}, not {getattr(wanted, field.name)!r}"
            for field in fields(self)
            if getattr(self, field.name) != getattr(wanted, field.name)
        ]
        if differences:
            raise ValueError(
                f"{path} has {'; '.join(differences)}. Give another folder, or extract the features again."
            )
