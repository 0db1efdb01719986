"""The subcommand: here, or in a guest that reaches what this machine reaches."""

from __future__ import annotations

import argparse
import sys

from ktlslab import _output
from ktlslab.errors import UsageError


def run(options: argparse.Namespace) -> int:
    """Run `ktlslab get` and return its exit status."""
    from ktlslab.getting import running  # noqa: PLC0415 - other commands need no HTTP

    if options.on == "here":
        return running.run(options)
    from ktlslab import guests  # noqa: PLC0415 - only where a guest is asked for
    from ktlslab.runs.machines import machine  # noqa: PLC0415

    where = machine(options.on, "wall", looking=True, network=True)
    if where.kernel is None:
        return running.run(options)
    written = [path for path in (*options.output, options.ssl_sessions) if path and str(path) != "-"]
    folders = {path.absolute().parent for path in written}
    if options.remote_name or len(folders) > 1:
        remedy = "Name the files by -o, all in one folder with --ssl-sessions, or get the body from standard output."
        raise UsageError(
            "writing files from a guest", answered="only one folder of this machine can be written there", remedy=remedy
        )
    if options.upload_file == "-" or any(value == "@-" for _, value in options.data or []):
        answered = "a guest has no standard input of this machine's"
        raise UsageError("sending standard input", answered=answered, remedy="Send a file.")
    argv = [sys.executable, "-m", "ktlslab", *options.words, "--on", "here"]
    done = guests.run(
        where.kernel,
        argv,
        clock="wall",
        rw=next(iter(folders), None),
        stdout=_output.whole(),
        stderr=sys.stderr.buffer,
        outbound=True,
    )
    return done.returncode
