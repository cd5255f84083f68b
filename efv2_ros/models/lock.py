"""Lock files: URL, size and checksum of a downloaded model, in a file beside it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from efv2_ros.files import open_atomic
from efv2_ros.models.modelfile import ModelCorruptError


@dataclass(frozen=True)
class Lock:
    """URL, size and checksum of a model file at the time of its download.

    Attributes:
        url: Where it came from.
        size: Size in bytes.
        sha256: SHA-256 digest in lower-case hexadecimal.
        fetched_at: Time of the download in UTC, ISO 8601.
    """

    url: str
    size: int
    sha256: str
    fetched_at: str

    @staticmethod
    def path_for(model: Path) -> Path:
        """Path of a model file's lock file."""
        return model.with_name(model.name + ".lock")

    @classmethod
    def read(cls, model: Path) -> Lock | None:
        """Read the lock of a model file; None if there is none.

        Raises:
            ModelCorruptError: The lock file is damaged.
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
        except (
            OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError,
        ) as error:  # fmt: skip
            raise ModelCorruptError(
                f"lock file {path} cannot be used: delete it and fetch the model again"
            ) from error

    def write(self, model: Path) -> None:
        """Write the lock file of a model file, replacing an earlier one.

        Raises:
            FileWriteError: It cannot be written.
        """
        with open_atomic(self.path_for(model)) as file:
            json.dump(asdict(self), file, indent=2)
            file.write("\n")
