"""Run the notebooks and keep what they show: `python -m ktlslab.show.notebooks`.

What `notebooks/run` does once everything is installed: a quick sweep on real kTLS, then every notebook, as .ipynb and
.html, plots as .png. Those whose metadata say `kernel_tls` run in a kernel that has it (a guest's, where this machine's
has none), the others here, on the sweep's table. Where no such kernel is available it says so, runs the notebooks
anyway, and marks the figures as recorded.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ktlslab import guests
from ktlslab.errors import KtlsLabError, MachineError, MissingExtraError, StorageError, TableError
from ktlslab.linux import capabilities
from ktlslab.measure.sweeping import sweep
from ktlslab.packages import extra, how_to_get, require
from ktlslab.runs.journal import interrupted
from ktlslab.runs.machines import machine
from ktlslab.show import handouts
from ktlslab.show.tables import VARIABLE, newest_recorded

if TYPE_CHECKING:
    from collections.abc import Mapping

CELL_TIMEOUT = 300
HERE = "python3"


def main(argv: Sequence[str] | None = None) -> int:
    """Sweep, execute, export, and say where the files are. 0: done, also with recorded figures; 1: something failed."""
    options = _parser().parse_args(argv)
    notebooks: Path = options.notebooks.resolve()
    out: Path = (options.out or notebooks / "out").resolve()
    try:
        require("lab", "pandas", "matplotlib", "nbclient", "ipykernel")
        out.mkdir(parents=True, exist_ok=True)
        return _run(notebooks, out, options.plan, options.on, papers=options.handouts)
    except KtlsLabError as error:
        _say(f"failed: {error}")
        return 1


def execute(
    source: Path, target: Path, *, kernel: str = HERE, specs: Path | None = None, env: Mapping[str, str] | None = None
) -> Path:
    """Execute a notebook from its own folder and write it with its outputs to `target`.

    `kernel` is a Jupyter kernel's name, looked up in `specs` too; what is written asks for it. `env` is added to its
    environment. KtlsLabError where a cell fails; the notebook is written anyway, to show where.
    """
    with extra("lab"):
        import nbformat  # noqa: PLC0415 - Jupyter is an extra
        from jupyter_client.kernelspec import KernelSpecManager  # noqa: PLC0415
        from jupyter_client.manager import AsyncKernelManager  # noqa: PLC0415
        from nbclient import NotebookClient  # noqa: PLC0415
        from nbclient.exceptions import CellExecutionError, CellTimeoutError  # noqa: PLC0415

    notebook = nbformat.read(source, as_version=4)  # type: ignore[no-untyped-call]
    known = KernelSpecManager()
    if specs:
        known.kernel_dirs = [str(specs), *known.kernel_dirs]
    title = known.get_kernel_spec(kernel).display_name
    notebook.metadata["kernelspec"] = {"name": kernel, "display_name": title, "language": "python"}
    manager = AsyncKernelManager(kernel_name=kernel, kernel_spec_manager=known, transport_encryption="auto")
    resources = {"metadata": {"path": str(source.parent)}}
    client = NotebookClient(notebook, timeout=CELL_TIMEOUT, startup_timeout=180, km=manager, resources=resources)

    async def run() -> None:
        try:
            await client.async_execute(env={**os.environ, **(env or {})})
        finally:
            if client.kc:
                client.kc.stop_channels()
            await manager.shutdown_kernel(now=True)  # nbclient leaves a manager that it was given as it is

    try:
        asyncio.run(run())
    except (CellExecutionError, CellTimeoutError) as error:
        said = f"{error.ename}: {error.evalue}" if isinstance(error, CellExecutionError) else str(error).strip()
        answered = f"a cell failed: {said}"
        raise KtlsLabError(f"executing {source.name}", answered=answered, remedy=f"See {target}.") from error
    finally:
        nbformat.write(notebook, target)  # type: ignore[no-untyped-call]
    return target


def as_html(notebook: Path) -> Path | None:
    """Write an executed notebook as HTML beside it; None where nbconvert is not installed."""
    with extra("lab"):
        import nbformat  # noqa: PLC0415

    try:
        page = handouts.as_page(nbformat.read(notebook, as_version=4), notebook.stem)  # type: ignore[no-untyped-call]
    except MissingExtraError:
        return None
    target = notebook.with_suffix(".html")
    target.write_text(page, encoding="utf-8")
    return target


def pictures_of(notebook: Path) -> list[Path]:
    """Write each picture of an executed notebook as PNG beside it, under its cell's name."""
    written = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        shown = [output.get("data", {}).get("image/png") for output in cell.get("outputs", [])]
        for data in filter(None, shown):
            written.append(notebook.with_name(f"{notebook.stem}-{cell['id']}.png"))
            written[-1].write_bytes(base64.b64decode("".join(data)))
    return written


def _run(notebooks: Path, out: Path, plan: str, on: str, *, papers: bool) -> int:
    began = time.monotonic()
    table, measured, why = _table(notebooks, out, plan, on)
    made = [("table", table)]
    with tempfile.TemporaryDirectory(prefix="ktlslab-kernelspec-") as folder:
        kernel, specs = _kernel_with_ktls(on, Path(folder), measured=measured)
        for source in sorted(notebooks.glob("[0-9]*.ipynb")):
            if wants_ktls(source):
                _say(f"{source.stem}: in the Jupyter kernel {kernel}")
                done = execute(source, out / source.name, kernel=kernel, specs=specs)
            else:
                _say(f"{source.stem}: here, with {table.name} at hand")
                done = execute(source, out / source.name, env={VARIABLE: str(table)})
            made.append(("notebook", done))
            made += [("plot", path) for path in pictures_of(done)]
    pages = [("page", page) for kind, path in made if kind == "notebook" and (page := as_html(path))]
    if papers:
        _say("handouts: pages, PDFs and copies to read")
        executed = [path for kind, path in made if kind == "notebook"]
        pages.append(("handouts", handouts.make(executed, out / "handouts")[0]))
        if not handouts.browser():
            _say(f"no PDFs: print the pages from any browser, or install Chromium: {how_to_get('chromium')}")
    _say("")
    for kind, path in [*made, *pages]:
        _say(f"{kind:>9}  {_relative(path)}")
    if not measured:
        _say(f"\nThe figures are RECORDED ones, not measured here: {why}")
    if kernel == HERE and not capabilities.probe().ktls:
        _say("Notebooks that show the handoff ran without kTLS: they show the userspace path.")
    _say(f"\ndone in {time.monotonic() - began:.0f} s; to run them yourself, from number 00 on:")
    _say(f"{_relative(Path(sys.prefix))}/bin/jupyter lab {_relative(notebooks)}")
    return 0


def _table(notebooks: Path, out: Path, plan: str, on: str) -> tuple[Path, bool, str]:
    """Return the table's path, whether it was measured now, and if not why not."""
    table = out / f"{Path(plan).stem}.parquet"
    try:
        where = machine(on)
        _say(f"sweep: plan {plan} on {where.name}{f' ({where.kernel})' if where.kernel else ''}, {where.clock} clock")
        sweep(plan, where.name, output=table, resume=interrupted(table))
    except StorageError:
        raise
    except MachineError as error:
        recorded = newest_recorded(notebooks.parent / "data")
        if recorded is None:
            remedy = "Fix what the message above names; `ktlslab doctor` says what else is missing."
            raise TableError(
                "measuring", answered=f"{error} And no recorded table is at hand", remedy=remedy
            ) from error
        _say(f"nothing can be measured here: {error}")
        return recorded, False, str(error)
    return table, True, ""


def wants_ktls(notebook: Path) -> bool:
    """Return whether a notebook's metadata ask for a kernel that has kTLS."""
    metadata = json.loads(notebook.read_text(encoding="utf-8"))["metadata"]
    return bool(metadata.get("ktlslab", {}).get("kernel_tls"))


def _kernel_with_ktls(on: str, folder: Path, *, measured: bool) -> tuple[str, Path | None]:
    """Return the Jupyter kernel for notebooks that want kTLS and where its kernelspec lies.

    Here if this machine's kernel has kTLS, else in a guest, else here without kTLS. If nothing could be `measured`, no
    emulated guest is tried again. The kernelspec goes into `folder`, but that of `auto` into this environment, where
    JupyterLab finds it afterwards: the notebooks ask for it.
    """
    if on == "here" or (on == "auto" and capabilities.probe().ktls):
        return HERE, None
    try:
        where = machine(on, "wall", looking=True, network=True)
        if not measured and not (where.kernel and where.kernel.user_mode):
            return HERE, None
        spec = guests.install() if on == "auto" else guests.install(where.name, prefix=folder)
    except MachineError as error:
        _say(f"no guest: {error}")
        return HERE, None
    return spec.name, spec.parent


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ktlslab.show.notebooks", description=__doc__.split("\n")[0])
    parser.add_argument("--notebooks", type=Path, default=Path("notebooks"), help="the folder of the notebooks")
    parser.add_argument("--out", type=Path, help="where everything goes; default NOTEBOOKS/out")
    parser.add_argument("--plan", default="quick", help="quick, standard, full or a file; default quick")
    parser.add_argument("--on", default="auto", help="auto, here, or a guest's kernel; default auto")
    parser.add_argument("--handouts", action="store_true", help="also make OUT/handouts: HTML and PDF for a class")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
