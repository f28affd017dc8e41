"""Packages that only measurements need: the extra `evaluation`."""

import contextlib
from collections.abc import Iterator

__all__ = ["evaluation_extra"]


@contextlib.contextmanager
def evaluation_extra(package: str) -> Iterator[None]:
    """Say how to install a package where an import inside the block fails.

    Args:
        package: Name under which the package is installed, such as "scikit-learn".

    Raises:
        ImportError: If the import fails.
    """
    try:
        yield
    except ImportError as error:
        raise ImportError(f'This measurement needs `{package}`: pip install -e ".[evaluation]".') from error
