"""The `ktlslab` command. Each subcommand is a thin layer over a call that a notebook can make as well.

Exit status: 0 success, 1 failure, 2 usage error. `compare` follows diff(1): 0 no difference, 1 differences, 2 trouble.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ktlslab
from ktlslab import _output
from ktlslab.errors import KernelUnavailableError, KtlsLabError, StorageError, UsageError, errno_name
from ktlslab.getting import options as getting


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    try:
        options = _parser().parse_args(argv)
        options.words = sys.argv[1:] if argv is None else list(argv)
        status: int = options.run(options)
    except UsageError as error:
        return _complain(error, 2)
    except KtlsLabError as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        return _complain("interrupted", 1)
    except BrokenPipeError:  # the reader of our output is gone, as in `ktlslab ... | head`: that needs no words
        return 1
    finally:
        _output.settle()
    return status


class _Parser(argparse.ArgumentParser):
    """Minds, unlike argparse, if its help cannot be written."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is sys.stdout:
            _output.say(message.removesuffix("\n"))
        else:
            _output.note(message, end="")


def _complain(error: object, status: int) -> int:
    _output.note(f"ktlslab: {error}")
    return status


def _note(text: str) -> None:
    _output.note(text)


def _say(text: str) -> None:
    _output.say(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="ktlslab", description=ktlslab.__doc__.split("\n")[0] if ktlslab.__doc__ else "")
    parser.add_argument("--version", action="version", version=ktlslab.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    auto, named = "auto (here if this kernel has kTLS, else", "here, or a guest kernel: 6.1, oldest, newest, uml"
    machine, looking = f"{auto} the newest guest), {named}", f"{auto} a user-mode kernel), {named}"
    featured = "; newest+erms counts on a CPU that has erms"

    doctor = commands.add_parser("doctor", help="show what this machine can do, and what to install for the rest")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.set_defaults(run=_doctor)

    getting.add(commands, looking, _get)

    sweep = commands.add_parser("sweep", help="measure a plan into a table")
    sweep.add_argument("--plan", default="quick", metavar="quick|standard|full|serve|FILE")
    sweep.add_argument(
        "--on", metavar="MACHINE", action="append", help=f"{machine}{featured}; may be repeated; default auto"
    )
    sweep.add_argument("--clock", choices=["wall", "instructions"], help="default: wall if the CPU is real")
    sweep.add_argument("-o", "--output", required=True, type=Path, metavar="TABLE.parquet")
    sweep.add_argument("--resume", action="store_true", help="continue an interrupted sweep, or an existing table")
    sweep.set_defaults(run=_sweep)

    guests = f"a guest kernel: 6.1, oldest, newest{featured}; may be repeated; default newest"
    profile = commands.add_parser("profile", help="count where the instructions of each cell of a plan go")
    profile.add_argument("--plan", default="quick", metavar="quick|standard|full|serve|FILE")
    profile.add_argument("--on", metavar="MACHINE", action="append", help=guests)
    profile.add_argument("-o", "--output", required=True, type=Path, metavar="PROFILE.parquet")
    profile.set_defaults(run=_profile)

    _estimate_parser(commands)
    _compare_parser(commands)
    _report_parser(commands)

    _promises_parser(commands, looking)
    _guest_parser(commands)
    _kernelspec_parser(commands)
    return parser


def _promises_parser(commands: Any, machine: str) -> None:
    kept = commands.add_parser("promises", help="try which of kTLS's promises each kernel keeps")
    which = "a promise, a group, a CVE, or a pattern of these such as 'io_uring*'; default: all"
    kept.add_argument("names", nargs="*", metavar="NAME", help=which)
    kept.add_argument("--list", action="store_true", help="print them with group, source and CVE, and try none")
    kept.add_argument("--on", metavar="MACHINE", action="append", help=f"{machine}; may be repeated; default auto")
    kept.add_argument(
        "-o", "--output", type=Path, metavar="TABLE.parquet", help="write the results, with their provenance"
    )
    kept.add_argument("--resume", action="store_true", help="continue an interrupted run into the same table")
    danger = "try also on this machine's own kernel, not in a guest of it, what may take it down"
    kept.add_argument("--dangerous", action="store_true", help=danger)
    kept.set_defaults(run=_promises)


def _guest_parser(commands: Any) -> None:
    guest = commands.add_parser("guest", help="boot kernels that have kTLS, in QEMU or as a process (uml)")
    actions = guest.add_subparsers(required=True, metavar="list|fetch|run")
    listing = actions.add_parser("list", help="list the cached kernels, and those that can be fetched")
    listing.add_argument("--all", action="store_true", help="every build of each series, not only the newest")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(run=_guest_list)
    fetch = actions.add_parser("fetch", help="fetch a kernel from Debian's archive, or a newer one of its series")
    fetch.add_argument(
        "kernel", metavar="KERNEL", help="a series such as 6.12 or uml-6.12, oldest, newest, uml, or a build"
    )
    fetch.set_defaults(run=_guest_fetch)
    run = actions.add_parser(
        "run", help="run a command in a guest", usage="ktlslab guest run [options] KERNEL -- COMMAND..."
    )
    run.add_argument("kernel", metavar="KERNEL", help="a series, oldest, newest, uml, a build, or a path to a vmlinuz")
    run.add_argument("command", nargs="+", metavar="COMMAND")
    counting = "default wall; instructions, which counts those of an emulated CPU, is for a command that measures"
    run.add_argument("--clock", choices=["wall", "instructions"], default="wall", help=counting)
    run.add_argument("--rw", type=Path, metavar="DIR", help="the only folder whose writes are kept")
    run.add_argument("--memory", default="1G", metavar="SIZE", help="the guest's memory: 512M, 2G, ...; default 1G")
    run.add_argument(
        "--timeout", type=getting.seconds, metavar="SECONDS", help="limit for the command, without the boot"
    )
    run.set_defaults(run=_guest_run)


def _kernelspec_parser(commands: Any) -> None:
    kernelspec = commands.add_parser("kernelspec", help="install a Jupyter kernel that runs in a guest")
    specs = kernelspec.add_subparsers(required=True, metavar="install|remove")
    install = specs.add_parser("install", help="install it for Jupyter")
    default = "default: a user-mode kernel if one can run here, else newest"
    install.add_argument("--kernel", default="auto", metavar="KERNEL", help=f"the guest's kernel; {default}")
    folder = "the only folder whose writes are kept; default: where JupyterLab is started"
    install.add_argument("--rw", type=Path, metavar="DIR", help=folder)
    install.add_argument("--memory", default="1G", metavar="SIZE", help="the guest's memory: 512M, 2G, ...; default 1G")
    install.add_argument("--clock", choices=["wall", "instructions"], default="wall", help="default wall")
    install.add_argument("--user", action="store_true", help="install for this user instead of this environment")
    install.set_defaults(run=_kernelspec_install)
    remove = specs.add_parser("remove", help="remove it from Jupyter")
    remove.add_argument("--kernel", metavar="KERNEL", help="the guest's kernel; default: all installed ones")
    remove.add_argument("--user", action="store_true", help="remove this user's instead of this environment's")
    remove.set_defaults(run=_kernelspec_remove)


def _estimate_parser(commands: Any) -> None:
    said = "estimate what arms would cost in nanoseconds on this CPU, whose kernel need not have kTLS"
    estimate = commands.add_parser("estimate", help=said)
    estimate.add_argument("--plan", default="quick", metavar="quick|standard|full|FILE")
    guest = "the guest kernel to count in: 6.1, oldest, newest; default newest"
    estimate.add_argument("--on", default="newest", metavar="MACHINE", help=guest)
    beside = "measure the estimated arms here as well (this kernel needs kTLS), and show both"
    estimate.add_argument("--check", action="store_true", help=beside)
    here = "take what arms cost here from this table: `taskset -c 0 ktlslab sweep --on here -o TABLE.parquet`"
    estimate.add_argument("--measured", type=Path, metavar="TABLE.parquet", help=here)
    counted = "take instructions from this profile: `ktlslab profile -o PROFILE.parquet`"
    estimate.add_argument("--profiled", type=Path, metavar="PROFILE.parquet", help=counted)
    estimate.add_argument("-o", "--output", type=Path, metavar="ESTIMATE.parquet")
    estimate.add_argument("--png", type=Path, metavar="FILE", help="also draw the estimated sign map")
    estimate.set_defaults(run=_estimate)


def _compare_parser(commands: Any) -> None:
    status = "Exit status, as diff(1): 0 no difference found, 1 differences found, 2 trouble (see standard error)."
    compare = commands.add_parser("compare", help="show what changed from one table to another", epilog=status)
    compare.add_argument("a", type=Path, metavar="A.parquet")
    compare.add_argument("b", type=Path, metavar="B.parquet")
    repeatable = "how much two equal runs may differ: 0.01 is 1 %%; default 0.005 (CPU: 0.01) for instructions, "
    repeatable += "0.03 for time"
    compare.add_argument("--tolerance", type=float, metavar="SHARE", help=repeatable)
    compare.add_argument("--quantity", action="append", metavar="COLUMN", help="may be repeated; default: all four")
    for side in ("a", "b"):
        only = f"of two profiles: compare only these cells of {side.upper()}, such as record_layer=kernel"
        compare.add_argument(f"--{side}", dest=f"{side}_only", default="", metavar="FIELD=VALUE,...", help=only)
    one = "of two profiles: compare the operation that stands for all, which two runs have alike, not the mean of all"
    compare.add_argument("--typical", action="store_true", help=one)
    compare.add_argument("--json", action="store_true", help="print JSON")
    compare.set_defaults(run=_compare)


def _report_parser(commands: Any) -> None:
    report = commands.add_parser(
        "report", help="show a table as one HTML page: question, answer, plots, counts, method, provenance"
    )
    report.add_argument("table", type=Path, metavar="TABLE.parquet")
    report.add_argument("-o", "--output", required=True, type=Path, metavar="REPORT.html")
    report.add_argument(
        "--png", type=Path, metavar="FOLDER", help="also write each plot as a PNG file into this folder"
    )
    profile = "a profile of the same plan: the page then shows where the instructions went"
    report.add_argument("--profile", type=Path, metavar="PROFILE.parquet", help=profile)
    report.set_defaults(run=_report)


def _doctor(options: argparse.Namespace) -> int:
    found = ktlslab.doctor()
    _say(json.dumps(found.to_json(), indent=1) if options.json else str(found))
    return 0 if found.ready else 1


def _get(options: argparse.Namespace) -> int:
    from ktlslab.getting import command  # noqa: PLC0415 - other commands need no HTTP

    return command.run(options)


def _sweep(options: argparse.Namespace) -> int:
    frame = ktlslab.sweep(
        options.plan, options.on or ["auto"], clock=options.clock, output=options.output, resume=options.resume
    )
    arms = Counter(zip(frame.machine, frame.kernel, frame.record_layer, frame.io_engine, strict=True))
    _say(f"{len(frame)} samples in {options.output}, each with its proof of path:")
    for (machine, kernel, layer, engine), count in arms.items():
        _say(f"  {machine:>8} ({kernel})  {layer}+{engine}: {count}")
    return 0


def _profile(options: argparse.Namespace) -> int:
    found = ktlslab.profile(options.plan, options.on or ["newest"], output=options.output)
    _say(str(found))
    return 0


def _estimate(options: argparse.Namespace) -> int:
    """Print weights, errors and estimates. That all are refused is a failure: the answer asked for is not there."""
    if options.png and not options.png.parent.is_dir():  # known before minutes are spent
        answered = f"there is no folder {options.png.parent}"
        raise StorageError(f"drawing {options.png}", answered=answered, remedy="Choose another place.")
    found = ktlslab.estimate(
        options.plan,
        options.on,
        check=options.check,
        output=options.output,
        measured=options.measured,
        profiled=options.profiled,
    )
    _say(str(found))
    if options.png:
        from ktlslab.show.estimated import estimated_sign_map  # noqa: PLC0415 - it loads matplotlib

        drawn = estimated_sign_map(found)
        try:
            options.png.write_bytes(drawn.png())
        except OSError as error:
            answered = errno_name(error.errno or 0)
            raise StorageError(f"drawing {options.png}", answered=answered, remedy="Choose another place.") from error
        _say(drawn.caption)
    wanted = found.predicted
    return 1 if len(wanted) and (wanted["reason"] != "").all() else 0


def _compare(options: argparse.Namespace) -> int:
    try:
        from ktlslab.profiling.frames import is_profile  # noqa: PLC0415 - it loads pandas

        if is_profile(options.a) and is_profile(options.b):
            return _compare_profiles(options)
        from ktlslab.measure import comparison  # noqa: PLC0415 - it loads pandas
        from ktlslab.measure.table import read_table  # noqa: PLC0415

        tables = read_table(options.a), read_table(options.b)
        found = comparison.compared(*tables, options.tolerance, options.quantity)
    except KtlsLabError as error:
        return _complain(error, 2)  # 1 says that there is a difference, as with diff
    _say(json.dumps(found.to_json(), indent=1) if options.json else str(found))
    if (found.cells["reason"] == "blocks").all():
        return _complain("nothing could be judged: every cell has too few blocks. Sweep with more repeats", 2)
    return 0 if found.changed.empty else 1


def _compare_profiles(options: argparse.Namespace) -> int:
    from ktlslab.profiling.comparison import REPEATABILITY, chosen, compared  # noqa: PLC0415

    if options.quantity:
        answered = "a profile has one quantity, instructions"
        raise UsageError("comparing two profiles", answered=answered, remedy="Leave out --quantity.")
    found = compared(
        ktlslab.read_profile(options.a),
        ktlslab.read_profile(options.b),
        a_only=chosen(options.a_only),
        b_only=chosen(options.b_only),
        typical=options.typical,
        tolerance=REPEATABILITY if options.tolerance is None else options.tolerance,
    )
    _say(json.dumps(found.to_json(), indent=1) if options.json else str(found))
    return 0 if found.changed.empty else 1


def _report(options: argparse.Namespace) -> int:
    from ktlslab.show.reporting import write_report  # noqa: PLC0415 - it loads pandas and matplotlib

    for path in write_report(options.table, options.output, options.png, options.profile):
        _say(str(path))
    return 0


def _promises(options: argparse.Namespace) -> int:
    """Print how each kernel does. A broken promise is a finding, not a failure of the command."""
    if options.list:
        return _list_promises(options.names or None)
    from ktlslab.promises.collect import scoreboard  # noqa: PLC0415 - only where promises are asked for
    from ktlslab.promises.table import summary  # noqa: PLC0415

    frame = scoreboard(
        options.on or ["auto"],
        output=options.output,
        names=options.names or None,
        dangerous=options.dangerous,
        resume=options.resume,
        say=_note,
    )
    _say(summary(frame))
    return 0


def _list_promises(names: Sequence[str] | None) -> int:
    from ktlslab.promises import select  # noqa: PLC0415

    chosen = select(names)
    widths = [max(len(getattr(promise, name)) for promise in chosen) for name in ("name", "group")]
    for promise in chosen:
        mended = f", mended in {', '.join(promise.mended)}" if promise.mended else ""
        cve = f"  [{promise.cve}{mended}]" if promise.cve else ""
        _say(f"{promise.name:<{widths[0]}}  {promise.group:<{widths[1]}}  {promise.source}{cve}")
    return 0


def _guest_list(options: argparse.Namespace) -> int:
    from ktlslab import guests  # noqa: PLC0415

    have = guests.cached()
    fields = ("series", "release", "version", "vmlinuz")
    here = [{name: str(getattr(kernel, name)) for name in fields} for kernel in have]
    try:
        offered, trouble = guests.builds() if options.all else guests.available(), ""
    except KtlsLabError as error:
        offered, trouble = [], str(error)
    if options.json:
        versions = {offer.series: offer.version for offer in offered}
        listed = {"cached": here, "available": list(versions), "versions": versions, "error": trouble}
        if options.all:
            listed["builds"] = [{name: getattr(offer, name) for name in fields[:3]} for offer in offered]
        _say(json.dumps(listed, indent=1))
        return 0
    for kernel in have:
        _say(f"{kernel.series:>8}  cached: {kernel.release} ({kernel.version or 'not from the archive'})")
    known = {kernel.version for kernel in have}
    for offer in offered:
        if offer.version not in known:
            name = offer.release or offer.series
            _say(f"{offer.series:>8}  available: {offer.version}, by `ktlslab guest fetch {name}`")
    if trouble:
        _note(f"ktlslab: {trouble}")
    return 0


def _guest_fetch(options: argparse.Namespace) -> int:
    from ktlslab import guests  # noqa: PLC0415

    kernel = guests.at_hand(options.kernel)
    try:
        kernel = guests.fetch(options.kernel, update=True)
    except KernelUnavailableError as error:
        if kernel is None:
            raise
        _complain(f"cannot find out whether there is a newer one: {error}", 0)
    _say(f"{kernel.series}: {kernel.release} in {kernel.vmlinuz}")
    return 0


def _guest_run(options: argparse.Namespace) -> int:
    from ktlslab import guests  # noqa: PLC0415

    done = guests.run(
        guests.find(options.kernel),
        options.command,
        clock=options.clock,
        rw=options.rw,
        memory=options.memory,
        timeout=options.timeout,
        stdout=_output.whole(),
        stderr=sys.stderr.buffer,
    )
    return done.returncode


def _kernelspec_install(options: argparse.Namespace) -> int:
    from ktlslab import guests  # noqa: PLC0415

    folder = guests.install(
        options.kernel, rw=options.rw, memory=options.memory, clock=options.clock, user=options.user
    )
    _say(f"installed in {folder}")
    kept = options.rw.resolve() if options.rw else "the folder where JupyterLab is started"
    _say(f"writes to {kept} are kept; what a notebook writes elsewhere is lost when its kernel ends")
    return 0


def _kernelspec_remove(options: argparse.Namespace) -> int:
    from ktlslab import guests  # noqa: PLC0415

    for folder in guests.remove(options.kernel, user=options.user):
        _say(f"removed {folder}")
    return 0
