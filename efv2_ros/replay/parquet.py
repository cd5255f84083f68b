"""Runs as Parquet files for DuckDB, pandas or Spark. Requires pyarrow, an optional dependency."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from efv2_ros.classify.latency import END_TO_END, STAGES
from efv2_ros.errors import Efv2Error
from efv2_ros.files import FileWriteError, open_atomic_binary
from efv2_ros.replay.offline import READ
from efv2_ros.replay.run import FrameResult, Run, RunError

ROW_GROUP = 2**14
"""Most rows of a row group; only the rows of one group are in memory as such."""

_STAGES = (READ, *STAGES, END_TO_END)


def require_pyarrow() -> None:
    """Check that pyarrow is installed.

    Raises:
        Efv2Error: It is not.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise Efv2Error(
            f"Parquet files need the package pyarrow ({error}): pip install pyarrow"
        ) from error


def write_parquet(run: Run, folder: Path, name: str) -> Path:
    """Write the run of a bag as `FOLDER/bag=NAME/MODEL-TOPIC.parquet`, whole or not at all.

    The folder may hold the runs of other bags and models too: it is partitioned by `bag`, as
    Hive does it. There is one row an image, in the order of the run; `docs/fleet.md` lists the
    columns. The file's metadata has the run's `info` as JSON, under `run`. The same run gives the
    same bytes, and replaces its former file.

    Args:
        run: The run.
        folder: The folder of all runs; made if it is missing.
        name: Name of the bag.

    Returns:
        The file.

    Raises:
        Efv2Error: pyarrow is missing.
        FileWriteError: The file cannot be written.
        RunError: A number of the run, such as a class id, is too large for its column.
    """
    require_pyarrow()
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    topic = str(run.info.get("topic", "")).strip("/").replace("/", ".")
    file_name = _encoded(f"{run.info.get('model', '')}-{topic}.parquet")
    path = folder / f"bag={_encoded(name)}" / file_name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileWriteError(f"cannot make the folder {path.parent}: {error.strerror}") from error
    schema = _schema().with_metadata({"run": json.dumps(run.info)})
    rows = _rows(run)
    with (
        open_atomic_binary(path) as file,
        ParquetWriter(file, schema, compression="zstd", use_dictionary=_REPEATED) as writer,
    ):
        while group := list(islice(rows, ROW_GROUP)):
            try:
                table = pa.Table.from_pylist(group, schema=schema)
            except (pa.ArrowException, OverflowError) as error:
                raise RunError(f"the run of {name} cannot be written: {error}") from error
            writer.write_table(table)
    return path


_REPEATED = [
    "topic", "model", "runtime", "frame_id", "class_id", "label", "dropped", "reason",
    "classes.list.element.class_id", "classes.list.element.label",
]  # fmt: skip
"""Columns whose few values are written once, in a dictionary."""


def _schema() -> Any:
    """Return the columns, the same for every run, as a `pyarrow.Schema`."""
    import pyarrow as pa

    best = [("class_id", pa.int64()), ("label", pa.string()), ("score", pa.float64())]
    return pa.schema(
        [
            ("topic", pa.string()),
            ("model", pa.string()),
            ("runtime", pa.string()),
            ("stamp", pa.timestamp("ns", "UTC")),
            ("sec", pa.int32()),
            ("nanosec", pa.uint32()),
            ("repetition", pa.int64()),
            ("frame_id", pa.string()),
            *best,
            ("classes", pa.list_(pa.struct(best))),
            *((f"{stage}_ms", pa.float64()) for stage in _STAGES),
            ("dropped", pa.string()),
            ("reason", pa.string()),
        ]
    )


def _rows(run: Run) -> Iterator[dict[str, Any]]:
    source = {key: _text(str(run.info.get(key, ""))) for key in ("topic", "model", "runtime")}
    labels = {class_id: _text(label) for class_id, label in run.labels.items()}
    repetitions: Counter[int] = Counter()
    for frame in run.frames:
        stamp = frame.header.nanoseconds
        yield source | _row(frame, labels) | {"repetition": repetitions[stamp]}
        repetitions[stamp] += 1


def _row(frame: FrameResult, labels: dict[int, str]) -> dict[str, Any]:
    """Describe an image by itself; columns without a value may be missing."""
    classes = [
        {"class_id": class_id, "label": labels.get(class_id, ""), "score": score}
        for class_id, score in zip(*frame.prediction, strict=True)
    ]
    best = classes[0] if classes else {}
    return {
        "stamp": frame.header.nanoseconds,
        "sec": frame.header.sec,
        "nanosec": frame.header.nanosec,
        "frame_id": _text(frame.header.frame_id),
        **best,
        "classes": classes,
        **{f"{stage}_ms": ms for stage, ms in frame.milliseconds.items()},
        "dropped": _text(frame.dropped) or None,
        "reason": _text(frame.reason) or None,
    }


def _text(text: str) -> str:
    r"""Write lone surrogates, which UTF-8 cannot encode, as `\uXXXX`."""
    return text.encode("utf-8", "backslashreplace").decode()


def _encoded(name: str) -> str:
    """Percent-encode a name for a path, as Hive does; letters of any script stay as they are.

    A dot or underscore in front would hide the file from Spark and pyarrow.
    """
    return re.sub(
        r"^[._]|[^\w.~-]",
        lambda match: f"%{match[0].encode().hex('%')}".upper(),
        _text(name),
    )
