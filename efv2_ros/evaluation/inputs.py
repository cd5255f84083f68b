"""Inputs of an evaluation: checked before any model is loaded, and the one or two models."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from efv2_ros.classify.model import Model, load_model
from efv2_ros.classify.options import ModelRequest
from efv2_ros.evaluation.classes import EvaluationError
from efv2_ros.evaluation.statistics import scipy_stats
from efv2_ros.files import check_writable
from efv2_ros.models.download import DownloadProgress
from efv2_ros.pictures.photo import SUFFIXES
from efv2_ros.runtimes.base import RUNTIMES


def check_inputs(
    folder: Path,
    requests: Sequence[ModelRequest],
    *,
    truth_file: Path | None = None,
    json_file: Path | None = None,
) -> None:
    """Refuse at once what would otherwise fail after hours.

    Args:
        folder: The images.
        requests: The models.
        truth_file: The images' classes.
        json_file: Where the summary is to be written.

    Raises:
        EvaluationError: There is no such folder, SciPy is missing, or `json_file` is one of the
            files that the evaluation reads.
        FileWriteError: `json_file` cannot be written.
    """
    found = _stat(folder)
    if found is None or not stat.S_ISDIR(found.st_mode):
        raise EvaluationError(f"there is no folder {folder}")
    scipy_stats()
    if json_file is None:
        return
    target = _stat(json_file)
    if target is not None:
        inputs: list[str | Path] = [truth_file or ""]
        for each in requests:
            inputs += (each.model_path, each.labels_file, each.catalog_file)
        is_input = any(
            os.path.samestat(target, found)
            for each in inputs
            if each and (found := _stat(each)) is not None
        )
        if is_input or json_file.suffix.lower() in SUFFIXES:
            raise EvaluationError(f"the JSON would overwrite {json_file}: choose another file")
    check_writable(json_file)


def _stat(path: str | Path) -> os.stat_result | None:
    try:
        return Path(path).stat()
    except (OSError, ValueError):  # there is none, or no file can have this name
        return None


def second_request(
    first: ModelRequest, runtime: str | None = None, model_path: str | None = None
) -> ModelRequest:
    """Describe the model to compare with the first: another runtime, another file, or both.

    Args:
        first: The first model.
        runtime: Name of the second model's runtime. None selects the first model's if it runs
            `model_path`, else one that does.
        model_path: The second model's file. None means the catalog's file of the same model for
            `runtime`.

    Raises:
        EvaluationError: Neither is given, or the first model is a file that `runtime` cannot run.
        RuntimeUnavailableError: There is no such runtime, or none that works here.
    """
    name, kind = first.select_runtime()
    if model_path is not None:
        if runtime is None:
            runs = Path(model_path).suffix.lower() == f".{kind.model_format}"
            runtime = name if runs else "auto"
        return replace(first, model_path=model_path, runtime=runtime)
    if runtime is None:
        raise EvaluationError("a comparison needs another runtime or another model file")
    wanted = RUNTIMES[runtime].model_format
    given = Path(first.model_path)
    if first.model_path and not given.is_dir() and wanted != kind.model_format:
        raise EvaluationError(
            f"{runtime} runs .{wanted} files, and {given} is none: name one with --compare-model"
        )
    return replace(first, runtime=runtime)


@contextmanager
def load_models(
    requests: Sequence[ModelRequest], on_progress: DownloadProgress | None = None
) -> Iterator[list[Model]]:
    """Load the models of an evaluation, and close them at the end.

    Args:
        requests: One model, or two to compare.
        on_progress: See `load_model`.

    Returns:
        The models; of a float and a quantised one, the float one comes first.

    Raises:
        EvaluationError: The two models have different classes, or are the same.
        Efv2Error: As `load_model`.
    """
    with ExitStack() as stack:
        models = [
            stack.enter_context(load_model(each, on_progress, pipelined=True)) for each in requests
        ]
        models.sort(key=lambda model: model.file.format == "bin")
        _check_comparable(models)
        yield models


def _check_comparable(models: Sequence[Model]) -> None:
    if len({each.runtime.info.classes for each in models}) > 1:
        counts = " and ".join(str(each.runtime.info.classes) for each in models)
        raise EvaluationError(f"the two models have {counts} classes: they cannot be compared")
    if len({(each.file.path, each.runtime.info.name) for each in models}) < len(models):
        model = models[0]
        raise EvaluationError(
            f"both models are {model.file.path} on {model.runtime.info.name}: choose others with "
            "--runtime and --compare, or --model and --compare-model"
        )
