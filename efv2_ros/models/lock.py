"""What a model file was when it was fetched, kept in a file beside it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from efv2_ros.files import open_atomic
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
        except (
            OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError,
        ) as error:  # fmt: skip
            raise ModelCorruptError(
                f"lock file {path} cannot be used: delete it and fetch the model again"
            ) from error

    def write(self, model: Path) -> None:
        """Put the lock beside a model file, replacing the one that is there.

        Raises:
            FileWriteError: It cannot be written.
        """
        with open_atomic(self.path_for(model)) as file:
            json.dump(asdict(self), file, indent=2)
            file.write("\n")
