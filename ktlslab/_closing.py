"""The base class of every live handle: a context manager that closes itself on exit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from ktlslab.errors import KtlsLabError


class Closing(ABC):
    """The base of classes whose `close` may be called twice."""

    __slots__ = ()

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except KtlsLabError as problem:
            if error is None:
                raise
            error.add_note(str(problem))  # what ended the block counts more
