"""What a model file was when it was fetched, kept in a file beside it."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from efv2_ros.models.modelfile import ModelCorruptError


@dataclass(frozen=True)
class Lock:
    """What a model file was when it was fetched.

    Attributes:
        url: where it came from.
        size: bytes.
        sha256: lower-case hexadecimal digest.
        fetched_at: UTC time in ISO 8601.
    """

    url: str
    size: int
    sha256: str
    fetched_at: str

    @staticmethod
    def path_for(model: Path) -> Path:
        """The lock file of a model file."""
        return model.with_name(model.name + ".lock")

    @classmethod
    def read(cls, model: Path) -> Lock | None:
        """The lock of a model file; None where there is none.

        Raises:
            ModelCorruptError: the lock file is damaged.
        """
        path = cls.path_for(model)
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                str(fields["url"]),
                int(fields["size"]),
                str(fields["sha256"]),
                str(fields["fetched_at"]),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelCorruptError(
                f"lock file {path} cannot be used: delete it and fetch the model again"
            ) from error

    def write(self, model: Path) -> None:
        """Put the lock beside a model file, replacing the one that is there."""
        _write_whole(self.path_for(model), (json.dumps(asdict(self), indent=2) + "\n").encode())


def _write_whole(path: Path, content: bytes) -> None:
    """Write a file so that readers and a power cut see the old or the new one, none between."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
