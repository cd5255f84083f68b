"""From a float model to a compiled one: rewrite, calibrate, compile. Kept in a cache."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from efv2_ros import __version__
from efv2_ros.quantize.calibration import digest, write_calibration
from efv2_ros.quantize.errors import QuantizeError
from efv2_ros.quantize.prepare import Inputs, digest_text, proto_sha256
from efv2_ros.quantize.recipe import Recipe
from efv2_ros.quantize.rounding import rounded_model
from efv2_ros.resources import cache_dir
from efv2_ros.rewrites import REWRITES, rewrite
from efv2_ros.toolchain.environment import Stopped, ToolchainError, toolchain_python
from efv2_ros.toolchain.jobs import (
    CompileRequest,
    CompileResult,
    NodeRule,
    OnProgress,
    compile_model,
)
from efv2_ros.toolchain.protocol import encode
from efv2_ros.toolchain.typed_json import decode

if TYPE_CHECKING:
    from onnx import ModelProto

Level = Literal["O0", "O1", "O2", "O3"]

_RESULT = "result.json"
_DIGESTS = "sha256"
_PACKAGES = ("rdkx5_yolo_mapper", "dgdk", "dg_nn_toolkit")
"""Python packages that the toolchain consists of."""

_KEPT = ("bin", "quantized", "log")
_NOT_KEPT = ("original_float", "optimized", "calibrated")
"""Files of a result that the cache keeps, and those it does not."""

_LOG = "toolchain.log"

_ROUNDING_SHARE = 0.15
"""Share of the progress that rounding the weights takes."""

_FORMAT = 1
"""Version of what the cache holds."""


@dataclass(frozen=True)
class Plan:
    """A recipe applied to a model, before it is compiled.

    Attributes:
        recipe: The recipe, for the model's size.
        proto: The rewritten graph.
        rewritten: For each rewrite, the number of places it changed.
        rules: The nodes that the recipe treats in their own way.
        level: The compiler's effort.
        quantize_only: Whether to stop at the quantised model.
        key: SHA-256 of all that the result depends on.
    """

    recipe: Recipe
    proto: ModelProto
    rewritten: Mapping[str, int]
    rules: tuple[NodeRule, ...]
    level: Level
    quantize_only: bool
    key: str


@dataclass(frozen=True)
class Built:
    """A compiled model.

    Attributes:
        plan: What it was made by.
        result: The compiler's result. From the cache, it has `bin`, `quantized` and `log`; its
            other files are gone.
        cached: Whether the cache had it.
    """

    plan: Plan
    result: CompileResult
    cached: bool


def make_plan(
    inputs: Inputs,
    recipe: Recipe,
    level: Level = "O2",
    *,
    quantize_only: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
) -> Plan:
    """Rewrite the model and find the nodes that the recipe means.

    Args:
        inputs: The float model and its images.
        recipe: The recipe, for any size.
        level: The compiler's effort.
        quantize_only: Whether to stop at the quantised model.
        should_stop: Polled between two rewrites.

    Raises:
        Stopped: `should_stop` returned True.
        RecipeError: A rule matches no node.
        RewriteError: The model cannot be rewritten.
    """
    recipe = recipe.for_size(inputs.source.size)
    proto, rewritten = _rewritten(inputs.source.proto, recipe.rewrites, should_stop)
    rules = recipe.rules(proto)
    request = _request(inputs, recipe, rules, level, quantize_only)
    key = digest_text(
        str(_FORMAT),
        __version__,
        proto_sha256(proto),
        digest(inputs.images.calibration),
        encode(replace(request, jobs=0)),
        recipe.rounding,
        json.dumps(toolchain_versions(), sort_keys=True),
    )
    return Plan(recipe, proto, rewritten, rules, level, quantize_only, key)


def _rewritten(
    proto: ModelProto, names: Sequence[str], should_stop: Callable[[], bool]
) -> tuple[ModelProto, dict[str, int]]:
    """Rewrite one by one, in the order of all rewrites; together they may take seconds."""
    places: dict[str, int] = {}
    for name in REWRITES:
        if should_stop():
            raise Stopped
        if name in names:
            proto, found = rewrite(proto, [name])
            places |= found
    return proto, places


def build(
    inputs: Inputs,
    plan: Plan,
    folder: Path | None = None,
    *,
    jobs: int = 0,
    use_cache: bool = True,
    on_progress: OnProgress = lambda step, share: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Built:
    """Compile a plan, or take the result from the cache.

    Args:
        inputs: The float model and its images.
        plan: From `make_plan`.
        folder: Where the files go, uncached; None keeps them in the cache.
        jobs: Threads of the compiler; 0 for one a core.
        use_cache: Whether rounded weights, which recipes share, may be read from and kept in the
            cache.
        on_progress: Called with what is done now, and the share that is done.
        should_stop: Polled; nothing half-written is left.

    Raises:
        ToolchainError: The toolchain is missing, or cannot compile the model.
        Stopped: `should_stop` returned True.
        QuantizeError: A file cannot be written, or weights cannot be rounded.
    """

    def compile_into(place: Path) -> CompileResult:
        return _compile(inputs, plan, place, jobs, use_cache, on_progress, should_stop)

    if folder is not None:
        return Built(plan, compile_into(folder), cached=False)
    place = cache_folder(plan.key)
    known = _read(place)
    if known is not None:
        return Built(plan, known, cached=True)
    shutil.rmtree(place, ignore_errors=True)  # it is damaged, if it is there
    with _beside(place) as temporary:
        result = compile_into(temporary)
        _keep(result, temporary)
        with suppress(OSError):  # another process was faster
            temporary.rename(place)
    known = _read(place)
    if known is None:
        raise QuantizeError(f"{place} was changed by another program: run the command again")
    return Built(plan, known, cached=False)


def cache_folder(key: str) -> Path:
    """Folder in the cache for the results of a key."""
    return cache_dir() / "quantize" / key[:32]


def toolchain_versions() -> dict[str, str]:
    """Versions of the toolchain's packages, without running it.

    Raises:
        ToolchainUnavailableError: It is not installed.
    """
    python = toolchain_python()
    found: dict[str, str] = {}
    for folder in python.parent.parent.glob("lib/python*/site-packages"):
        for info in folder.glob("*.dist-info"):
            name, _, version = info.name.removesuffix(".dist-info").rpartition("-")
            if name.replace("-", "_").lower() in _PACKAGES:
                found[name] = version
    return found


def _request(
    inputs: Inputs,
    recipe: Recipe,
    rules: tuple[NodeRule, ...],
    level: Level,
    quantize_only: bool,
    folder: Path = Path(),
    jobs: int = 0,
) -> CompileRequest:
    image, calibration = inputs.source.model.image, recipe.calibration
    return CompileRequest(
        model=folder / "model.onnx",
        calibration=folder / "calibration",
        mean=image.mean,
        scale=image.scale,
        nv12_range=image.nv12_range,
        nodes=rules,
        all_int16=recipe.all_int16,
        calibration_type=calibration.type,
        max_percentile=calibration.percentile,
        per_channel=calibration.per_channel,
        asymmetric=calibration.asymmetric,
        bias_correction=calibration.bias_correction,
        compile_mode=recipe.mode,
        optimize_level=level,
        jobs=jobs,
        quantize_only=quantize_only,
    )


def _compile(
    inputs: Inputs,
    plan: Plan,
    folder: Path,
    jobs: int,
    use_cache: bool,
    on_progress: OnProgress,
    should_stop: Callable[[], bool],
) -> CompileResult:
    """Write the compiler's inputs into a folder for a while, and compile into it."""
    inside = folder / "inputs"
    (inside / "calibration").mkdir(parents=True)
    try:
        on_progress("writing the calibration images", 0.0)
        image = inputs.source.model.image
        proto, begin = plan.proto, 0.0
        if plan.recipe.rounding == "gptq":
            begin = _ROUNDING_SHARE
            proto = rounded_model(
                inputs, proto, use_cache=use_cache, should_stop=should_stop,
                on_progress=lambda share: on_progress("rounding the weights", begin * share),
            )  # fmt: skip
        (inside / "model.onnx").write_bytes(proto.SerializeToString(deterministic=True))
        write_calibration(inputs.images.calibration, image, inside / "calibration", should_stop)
        request = _request(
            inputs, plan.recipe, plan.rules, plan.level, plan.quantize_only, inside, jobs
        )
        try:
            return compile_model(
                request, folder, should_stop=should_stop,
                on_progress=lambda step, share: on_progress(step, begin + (1 - begin) * share),
            )  # fmt: skip
        except Stopped:
            raise
        except ToolchainError as error:
            raise _with_log(error, folder, plan.key) from error
        except OSError as error:
            raise QuantizeError(f"cannot compile into {folder}: {error.strerror}") from error
    finally:
        shutil.rmtree(inside, ignore_errors=True)


def _with_log(error: ToolchainError, folder: Path, key: str) -> ToolchainError:
    """Keep the log of a failed compilation, whose folder goes, and name it where it is kept."""
    log = folder.resolve() / _LOG
    kept = cache_dir() / "quantize" / f"failed-{key[:16]}.log"
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(log, kept)
    except OSError:  # there is none, or the disk is full
        return error
    text = str(error)
    if str(log) in text:
        return ToolchainError(text.replace(str(log), str(kept)))
    return ToolchainError(f"{text}; its log is {kept}")


@contextmanager
def _beside(place: Path) -> Iterator[Path]:
    """Make a temporary folder beside a place; it is gone at the end unless it was renamed."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".efv2_", dir=place.parent))
    except OSError as error:
        raise QuantizeError(
            f"cannot write to the cache {place.parent}: {error.strerror}; --no-cache works "
            "without, and XDG_CACHE_HOME names another"
        ) from error
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _keep(result: CompileResult, folder: Path) -> None:
    """Write the result beside those of its files that `Built` names, and remove all others."""
    fields: dict[str, Any] = json.loads(encode(result))
    del fields["version"]
    for name, value in vars(result).items():
        if isinstance(value, Path):
            fields[name] = value.name
    kept = {fields[name] for name in _KEPT}
    try:
        fields[_DIGESTS] = {
            name: _sha256(folder / fields[name]) for name in _KEPT if fields[name] is not None
        }
        for path in folder.iterdir():
            if path.name not in kept:
                path.unlink()
        (folder / _RESULT).write_text(json.dumps(fields), encoding="utf-8")
    except OSError as error:
        raise QuantizeError(f"cannot write {folder / _RESULT}: {error.strerror}") from error


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read(folder: Path) -> CompileResult | None:
    """Read a result that `_keep` wrote; None if it is missing or damaged."""
    try:
        fields = json.loads((folder / _RESULT).read_text(encoding="utf-8"))
        digests = fields.pop(_DIGESTS)
        for name in (*_KEPT, *_NOT_KEPT):
            if fields[name] is not None:
                fields[name] = str(folder / fields[name])
                if name in _KEPT and _sha256(Path(fields[name])) != digests[name]:
                    return None
        return decode(CompileResult, fields)
    except (OSError, ValueError, KeyError, TypeError, ToolchainError):
        return None
