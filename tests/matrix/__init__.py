"""The matrix: fault x record layer x I/O engine x role, each with one typed outcome. `rows` says what a row is."""

from tests.matrix import counts, endings, installs, parting, peer_faults, sharing, signals, timeouts  # noqa: F401 - they add rows
from tests.matrix.rows import ROWS

__all__ = ["ROWS"]
