"""A checker whose catalogue is made up: one check takes the kernel down. Run it in a guest only."""

# ruff: noqa: D401 - a promise is a statement
from __future__ import annotations

import os
import sys
from pathlib import Path

from ktlslab.promises import catalogue, checker
from ktlslab.promises.check import Group

promise = Group("made up")


@promise("a test", installed=None)
def before(pair):
    """This one is kept before the kernel goes down."""
    pair.expect("one", 1, 1)


@promise("a test", installed=None)
def the_kernel_goes_down(_pair):
    """This one takes the kernel down, and no list says that it can."""
    if os.environ.get("KTLSLAB_GUEST"):
        Path("/proc/sysrq-trigger").write_text("c")


@promise("a test", installed=None)
def after(pair):
    """This one is kept by the next guest."""
    pair.expect("one", 1, 1)


@promise("a test", installed=None, cve="CVE-2000-00001", mended=("99.0",))
def it_was_known_to_be_dangerous(_pair):
    """This one does the same, and says so."""
    the_kernel_goes_down(_pair)


def everything():
    """Return the promises of this file."""
    return tuple(promise.promises)


if __name__ == "__main__":
    catalogue.all_promises = everything
    sys.exit(checker.main(sys.argv[1:]))
