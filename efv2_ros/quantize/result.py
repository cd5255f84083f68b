"""The result as a folder that every command takes as a model: catalog, files, labels, report."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from efv2_ros.classify.model import Model
from efv2_ros.quantize.errors import QuantizeError
from efv2_ros.quantize.page import html, markdown
from efv2_ros.quantize.report import Outcome, as_dict

BIN_DIGEST = "bin_sha256"
"""Metadata of the quantised ONNX: SHA-256 of the .bin that was compiled from it."""

_REPORT = "report.json"
_CATALOG = "catalog.yaml"


def result_name(text: str) -> str:
    """Make a name of letters, digits, `_`, `.` and `-` of a text."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", text).strip("_.-") or "model"


def check_out(out: Path) -> None:
    """Check that a result can be written, before the work whose result it is.

    Raises:
        QuantizeError: The folder cannot be made, or holds something else than a result.
    """
    try:
        if not out.parent.is_dir():
            raise QuantizeError(f"cannot make {out}: there is no folder {out.parent}")
        if not os.access(out.absolute().parent, os.W_OK | os.X_OK):
            raise QuantizeError(f"cannot make {out}: no folder can be made in {out.parent}")
        if not os.path.lexists(out):
            return
        if not out.is_dir() or out.is_symlink():
            raise QuantizeError(f"cannot make {out}: it is there already and no folder")
        if any(out.iterdir()) and not _is_result(out):
            raise QuantizeError(
                f"cannot make {out}: it is there already, and holds something else than a result "
                "of efv2 quantize"
            )
    except OSError as error:
        raise QuantizeError(f"cannot make {out}: {error.strerror or error}") from error


def _is_result(folder: Path) -> bool:
    return (folder / _REPORT).is_file() and (folder / _CATALOG).is_file()


def write_result(outcome: Outcome, out: Path) -> dict[str, Any]:
    """Write a result beside its place and rename it, replacing an earlier result.

    Args:
        outcome: The outcome; it has a compiled model.
        out: The folder, checked with `check_out`.

    Returns:
        The report.

    Raises:
        QuantizeError: It cannot be written; nothing half-written is left.
    """
    out = out.absolute()
    try:
        temporary = Path(tempfile.mkdtemp(prefix=".efv2_", dir=out.parent))
        try:
            report = _fill(outcome, temporary)
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o777 & ~umask)
            _move(temporary, out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno == errno.ENOSPC:
            reason = "the disk is full"
        raise QuantizeError(f"cannot write {out}: {reason}") from error
    return report


def _move(temporary: Path, out: Path) -> None:
    """Rename a folder to its place; an earlier one is removed once the new one is there."""
    if not out.is_dir():
        temporary.rename(out)
        return
    if not any(out.iterdir()):
        out.rmdir()
        temporary.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=".efv2_", dir=out.parent))
    try:
        out.rename(old / out.name)
        try:
            temporary.rename(out)
        except BaseException:
            with suppress(OSError):
                (old / out.name).rename(out)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _fill(outcome: Outcome, folder: Path) -> dict[str, Any]:
    name, result = outcome.name, outcome.built.result
    if result.bin is None:
        raise QuantizeError(f"{name} was only quantised, and a result has a compiled model")
    content = result.bin.read_bytes()
    (folder / f"{name}.bin").write_bytes(content)
    _write_quantized(
        result.quantized, folder / f"{name}.quantized.onnx", hashlib.sha256(content).hexdigest()
    )
    labels = _write_labels(outcome.inputs.source.model, folder)
    _write_yaml(folder / _CATALOG, {"models": {name: _entry(outcome, labels)}})
    _write_yaml(folder / "recipe.yaml", outcome.built.plan.recipe.as_dict())
    files = {
        path.name: {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.iterdir())
    }
    report = as_dict(outcome, files)
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    # A label may hold half a surrogate pair, which UTF-8 cannot encode.
    (folder / _REPORT).write_bytes(text.encode(errors="replace"))
    (folder / "report.md").write_bytes(markdown(outcome, report).encode(errors="replace"))
    (folder / "report.html").write_bytes(html(outcome, report).encode(errors="replace"))
    for path in folder.iterdir():
        _flush(path)
    return report


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _write_quantized(source: Path, target: Path, bin_digest: str) -> None:
    """Copy the quantised model, and note in it which .bin it belongs to."""
    import onnx

    model = onnx.load(str(source))
    kept = [each for each in model.metadata_props if each.key != BIN_DIGEST]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    model.metadata_props.add(key=BIN_DIGEST, value=bin_digest)
    target.write_bytes(model.SerializeToString())


def _write_labels(model: Model, folder: Path) -> str | None:
    """Write the names of the classes, which say of an untrained network that it is one."""
    source = model.file.spec.labels
    if source is None:
        return None
    if model.file.untrained:
        (folder / "labels.txt").write_text("\n".join(model.labels) + "\n", encoding="utf-8")
        return "labels.txt"
    name = f"labels{source.suffix.lower()}"
    shutil.copyfile(source, folder / name)
    return name


def _entry(outcome: Outcome, labels: str | None) -> dict[str, Any]:
    """The result's entry in its catalog."""
    model, estimate = outcome.inputs.source.model, outcome.built.result.estimate
    spec = model.file.spec
    entry: dict[str, Any] = {
        "input": {"height": spec.height, "width": spec.width},
        "classes": model.runtime.info.classes,
        "mean": list(spec.mean),
        "scale": list(spec.scale),
        "nv12_range": spec.nv12_range,
        "crop_pct": spec.crop_pct,
        "files": {"bin": f"{outcome.name}.bin"},
    }
    if labels:
        entry["labels"] = labels
    if estimate is not None:
        entry["published"] = {
            "estimated_latency_ms": round(estimate.milliseconds, 4),
            "estimated_fps": round(estimate.fps, 2),
        }
    return entry


def _write_yaml(path: Path, document: Mapping[str, Any]) -> None:
    import yaml  # type: ignore[import-untyped]

    text = yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True, width=99)
    path.write_text(text, encoding="utf-8")
