"""What takes long to make out of a model file, kept beside the model files: its weights as safetensors.

Reading a GGUF file by transformers takes a minute, reading safetensors a second. A conversion is only a quicker way to
the same numbers: nothing in a result may depend on whether there was one.

On disk, in the folder of models:

    converted/<sha256 of the source, 16 digits>-<variant>/   weights, config and tokenizer, by save_pretrained
        source.json        what it was made from, by which version, and the size of each file
    converted/.<the same>.<random>/                          one under way; it takes its name when it is whole
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from promptopt import jsonio
from promptopt.errors import ConfigError, StorageError

_FORMAT = 1
_NOTE = "source.json"
_SPARE = 64 << 20
_ABANDONED = 24 * 3600.0


class Converted:
    """The converted form of one source, there or not yet. Safe to share between processes.

    Args:
        folder: of the models.
        sha256: of the source, 64 hex digits.
        variant: what else it depends on, e.g. the number format.
        maker: who converts, with its version; another one converts anew.
    """

    def __init__(self, folder: Path, sha256: str, variant: str, maker: str) -> None:
        self.path = folder / "converted" / f"{sha256[:16]}-{variant}"
        self._source = {"format": _FORMAT, "sha256": sha256, "variant": variant, "maker": maker}

    @property
    def whole(self) -> bool:
        """Whether it is there, of this source, with every file as long as when it was written."""
        try:
            note = jsonio.loads((self.path / _NOTE).read_bytes())
            return bool(note == self._note(self.path))
        except (OSError, ConfigError):
            return False

    def make(self, size: int, save: Callable[[Path], object]) -> None:
        """Write it; what is there already, of another version or damaged, is replaced.

        Args:
            size: bytes it will need, roughly.
            save: writes the files into the folder it is given.

        Raises:
            StorageError: there is no room for it, or the folder cannot be written. Nothing is left behind.
        """
        part = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        try:
            part.mkdir(parents=True)
            self._sweep()
            free = shutil.disk_usage(part).free
            if free < size + _SPARE:
                raise StorageError(
                    f"Expected {(size + _SPARE) / 1e6:,.0f} MB of free disk in {self.path.parent}, got "
                    f"{free / 1e6:,.0f} MB. Free some, or set PROMPTOPT_MODELS to a folder on another disk."
                )
            save(part)
            (part / _NOTE).write_text(jsonio.pretty(self._note(part)), encoding="utf-8")
            self.remove()
            part.rename(self.path)
        except StorageError:
            raise
        except Exception as error:  # the writer's own types, for a full disk too
            if self.whole:
                return  # another process was faster
            raise StorageError(
                f"Cannot write {self.path}: {type(error).__name__}: {error}. Free some disk, or set PROMPTOPT_MODELS "
                "to a folder on another disk."
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def remove(self) -> None:
        """Delete it, where it is there."""
        with contextlib.suppress(FileNotFoundError):
            # Without its note it counts as not there, so that a delete cut short leaves nothing to be used.
            (self.path / _NOTE).unlink()
        shutil.rmtree(self.path, ignore_errors=True)

    def _note(self, folder: Path) -> dict[str, Any]:
        files = {file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.name != _NOTE}
        return {**self._source, "files": files}

    def _sweep(self) -> None:
        """Delete what killed processes left of this conversion."""
        for left in self.path.parent.glob(f".{self.path.name}.*"):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > _ABANDONED:
                    shutil.rmtree(left, ignore_errors=True)
