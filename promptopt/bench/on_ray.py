"""The cells of a sweep on Ray: a few processes of this machine, or a cluster.

Where a worker sees the sweep's folder (this machine, a shared file system), it writes the run there: when it dies, the
cell is played again by another and goes on where it stopped; no call is paid twice. A worker that does not see it plays
into a folder of its own and sends the files back; when it dies, its cell alone is begun anew.

Cells travel as JSON. Models are opened by the worker, and stay open from cell to cell.
"""

from __future__ import annotations

import base64
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from promptopt import jsonio
from promptopt.bench.grid import Cell, Grid
from promptopt.bench.sweep import Done, Models, Runner, play
from promptopt.errors import ConfigError, ModelDownError, ModelUnavailableError, PromptOptError, StorageError

_TRIES = 5
"""Workers that may die over one cell before it is given up: a cell that kills its worker would do so for ever."""
_OURS: dict[str, type[PromptOptError]] = {
    error.__name__: error for error in (ModelDownError, ModelUnavailableError, StorageError)
}
_SHARED = ".shared"
_open: list[Models] = []
"""In a worker: its models, from cell to cell."""


def on_ray(grid: Grid, address: str = "local", workers: int = 2) -> Runner:
    """Play cells on Ray.

    Args:
        grid: of the sweep.
        address: ``local`` begins a cluster on this machine that ends with the sweep; ``auto`` or an address joins one.
        workers: cells at once; each takes one CPU of the cluster.

    Raises:
        ConfigError: Ray is not installed.
    """
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise ConfigError("Ray is not installed. Fix: pip install 'promptopt[ray]'", "--ray") from error
    return lambda cells, folder, late: _played(grid, cells, folder, late, address, workers)


def _played(
    grid: Grid, cells: Sequence[Cell], folder: Path, late: Callable[[], bool], address: str, workers: int
) -> Iterator[Done]:
    import ray

    begun = not ray.is_initialized()
    if begun:
        _join(grid, address, workers)
    remote = ray.remote(num_cpus=1, max_retries=_TRIES, retry_exceptions=False)(_on_worker)
    token = _token(folder)
    try:
        waiting = list(cells)[::-1]
        running: dict[Any, Cell] = {}
        while waiting or running:
            if late():
                waiting = []
            while waiting and len(running) < workers:
                cell = waiting.pop()
                sent: dict[str, Any] = {"cell": cell.to_json(), "folder": str(folder.absolute()), "token": token}
                sent |= {"root": str(grid.path.parent.absolute()), "grid": grid.path.name, "code": grid.allow_code}
                running[remote.remote(jsonio.canonical(sent))] = cell
            if not running:
                break
            finished, _ = ray.wait(list(running), num_returns=1)
            for reference in finished:
                yield _received(ray, reference, running.pop(reference), folder)
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        (folder / _SHARED).unlink(missing_ok=True)
        if begun:
            ray.shutdown()


def _join(grid: Grid, address: str, workers: int) -> None:
    import ray

    _reached(address)
    try:
        if address == "local":
            ray.init(address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False)
        else:
            # Machines of a cluster need the tasks: what lies beside the grid travels along.
            ray.init(
                address=address, log_to_driver=False, runtime_env={"working_dir": str(grid.path.parent.absolute())}
            )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(f"Cannot join Ray at {address!r}: {error}. Is it running?", "--ray") from error


def _reached(address: str) -> None:
    """Ray itself waits for minutes, and then ends the process."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ConfigError(f"Cannot join Ray at {address!r}: {error}. Is it running?", "--ray") from error


def _received(ray: Any, reference: Any, cell: Cell, folder: Path) -> Done:
    try:
        answer = jsonio.loads(ray.get(reference), "a worker's answer")
    except ray.exceptions.RayError as error:
        # Its workers died over it, or it raised what is no error of ours: it costs itself alone.
        said = (str(error).strip().splitlines() or [""])[-1]
        return Done(cell, None, f"Ray gave up after {_TRIES} tries: {type(error).__name__}: {said}")
    if "error" in answer:
        raise _OURS[answer["error"]](answer["message"])
    for name, content in answer["files"].items():
        path = folder / "runs" / cell.folder / Path(name).name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(content))
    return Done.from_json(answer["done"])


def _token(folder: Path) -> str:
    """What only those who see this folder can read: a path alone might be another machine's."""
    import secrets

    token = secrets.token_hex(16)
    (folder / _SHARED).write_text(token, encoding="utf-8")
    return token


def _on_worker(sent: bytes) -> bytes:
    """In a worker: play one cell; what comes back is JSON."""
    order = jsonio.loads(sent, "a cell")
    cell, folder = Cell.from_json(order["cell"]), Path(order["folder"])
    shared = _sees(folder, order["token"])
    root = Path(order["root"]) if shared else Path.cwd()
    if not _open:
        _open.append(Models())
    with tempfile.TemporaryDirectory() as own:
        into = folder if shared else Path(own)
        try:
            done = play(cell, into, root, order["grid"], _open[0], order["code"])
        except tuple(_OURS.values()) as error:
            return jsonio.canonical({"error": type(error).__name__, "message": str(error)})
        run = into / "runs" / cell.folder
        files = {} if shared or not run.is_dir() else {p.name: _text(p) for p in sorted(run.iterdir()) if p.is_file()}
    return jsonio.canonical({"done": done.to_json(), "files": files})


def _sees(folder: Path, token: str) -> bool:
    try:
        return (folder / _SHARED).read_text(encoding="utf-8") == token
    except OSError:
        return False


def _text(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
