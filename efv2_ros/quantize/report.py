"""What became of a model, as plain values: the report that is written as JSON, text and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from efv2_ros import __version__
from efv2_ros.evaluation.statistics import Interval
from efv2_ros.quantize.build import Built, toolchain_versions
from efv2_ros.quantize.calibration import digest
from efv2_ros.quantize.check import Remark
from efv2_ros.quantize.explanation import explain
from efv2_ros.quantize.fidelity import MOST_CHANGED, Answer, Change, Fidelity
from efv2_ros.quantize.prepare import Inputs, proto_sha256
from efv2_ros.quantize.proof import Claim
from efv2_ros.toolchain.jobs import Estimate

VERSION = 1
"""Version of the report's form."""


@dataclass(frozen=True)
class Limits:
    """What the result must keep to; None for no limit.

    Attributes:
        min_agreement: Least share of images with the same best class, 0..1.
        max_drop: Most top-1 accuracy lost, in percentage points.
        max_ms: Longest estimated latency in milliseconds.
    """

    min_agreement: float | None = None
    max_drop: float | None = None
    max_ms: float | None = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """All that is known of a quantised model.

    Attributes:
        name: Name of the result.
        inputs: What it was made from.
        built: The compiled model.
        remarks: Of the calibration check.
        claims: Of the proof.
        fidelity: Against the float model; None without images to compare with.
        limits: What it must keep to.
    """

    name: str
    inputs: Inputs
    built: Built
    remarks: Sequence[Remark]
    claims: Sequence[Claim]
    fidelity: Fidelity | None
    limits: Limits


@dataclass(frozen=True)
class Verdict:
    """Whether a limit is kept.

    Attributes:
        holds: Whether it is.
        text: A sentence for people.
    """

    holds: bool
    text: str


def verdicts(outcome: Outcome) -> list[Verdict]:
    """Hold the result against its limits."""
    limits, found = outcome.limits, []
    fidelity, estimate = outcome.fidelity, outcome.built.result.estimate
    if limits.max_ms is not None and estimate is not None:
        value = estimate.milliseconds
        found.append(_verdict("estimated latency", value <= limits.max_ms,
                              f"{value:.2f} ms", f"at most {limits.max_ms:g} ms"))  # fmt: skip
    if limits.min_agreement is not None and fidelity is not None:
        share = fidelity.agreed / fidelity.images
        found.append(_verdict("top-1 agreement", share >= limits.min_agreement,
                              f"{share:.1%}", f"at least {limits.min_agreement:.1%}"))  # fmt: skip
    if limits.max_drop is not None and fidelity is not None and fidelity.accuracy is not None:
        drop = fidelity.accuracy.drop[0] * 100
        found.append(_verdict("top-1 drop", drop <= limits.max_drop + 1e-9,
                              f"{drop:.2f} points", f"at most {limits.max_drop:g}"))  # fmt: skip
    return found


def _verdict(what: str, holds: bool, value: str, wanted: str) -> Verdict:
    return Verdict(holds, f"The {what} is {value}, and is to be {wanted}.")


def as_dict(outcome: Outcome, files: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Write an outcome as JSON's types.

    Args:
        outcome: The outcome.
        files: Size and SHA-256 of each file of the result by name.
    """
    inputs, built = outcome.inputs, outcome.built
    file, spec = inputs.source.model.file, inputs.source.model.file.spec
    images, view = inputs.images, asdict(inputs.view)
    return {
        "version": VERSION,
        "name": outcome.name,
        "made_by": f"efv2_ros {__version__}",
        "key": built.plan.key,
        "model": {
            "name": spec.name,
            "size": inputs.source.size,
            "file": str(file.path),
            "sha256": file.sha256,
            "rewritten_sha256": proto_sha256(built.plan.proto),
            "untrained": file.untrained,
            "input": {"height": spec.height, "width": spec.width},
            "classes": inputs.source.model.runtime.info.classes,
            "mean": list(spec.mean),
            "scale": list(spec.scale),
            "nv12_range": spec.nv12_range,
            "crop_pct": spec.crop_pct,
            "notes": list(inputs.source.notes),
        },
        "recipe": {"name": built.plan.recipe.name, **built.plan.recipe.as_dict()},
        "explanation": [list(each) for each in explain(built.plan.recipe)],
        "rewrites": dict(built.plan.rewritten),
        "compiler": {
            "optimize_level": built.plan.level,
            "seconds": round(built.result.seconds, 1),
            "cached": built.cached,
            "march": built.result.march,
        },
        "calibration": {
            "kind": images.kind,
            "path": str(images.path),
            "topic": images.topic,
            "images_there": images.total,
            "images": len(images.calibration),
            "seed": images.seed,
            "pixels_sha256": digest(images.calibration),
            "names": [each.name for each in images.calibration],
            "left_out": list(images.left_out),
            "view": {name: view[name] for name in ("fit", "antialias", "input_range")}
            | {"roi": list(view["roi"]) if view["roi"] else None},
        },
        "check": [each._asdict() for each in outcome.remarks],
        "proof": [each._asdict() for each in outcome.claims],
        "nodes": [asdict(each) for each in built.result.nodes],
        "estimate": _estimate(built.result.estimate),
        "fidelity": _fidelity(outcome.fidelity),
        "limits": [asdict(each) for each in verdicts(outcome)],
        "files": {name: dict(each) for name, each in files.items()},
        "versions": {
            "efv2_ros": __version__, **toolchain_versions(), **built.result.versions
        },
    }  # fmt: skip


def _estimate(estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    waits = dict.fromkeys(("compute", "ddr", "layout"), 0.0)
    for layer in estimate.layers:
        if layer.waits_for:
            waits[layer.waits_for] += layer.microseconds
    return {
        "milliseconds": estimate.milliseconds,
        "fps": estimate.fps,
        "ddr_bytes": estimate.ddr_bytes,
        "subgraphs": estimate.subgraphs,
        "waits_microseconds": {name: round(value, 3) for name, value in waits.items()},
        "layers": [
            asdict(each)
            for each in sorted(estimate.layers, key=lambda each: -each.microseconds)
        ],
    }  # fmt: skip


def _fidelity(fidelity: Fidelity | None) -> dict[str, Any] | None:
    if fidelity is None:
        return None
    accuracy = fidelity.accuracy
    return {
        "path": str(fidelity.path),
        "images": fidelity.images,
        "pixels_sha256": digest(
            sorted((each.sample for each in fidelity.changes), key=lambda each: each.name)
        ),
        "cached": fidelity.cached,
        "cosine": {
            "mean": float(fidelity.cosines.mean()), "min": float(fidelity.cosines.min())
        },
        "agreement": _share(fidelity.agreed / fidelity.images, fidelity.agreement),
        "accuracy": None if accuracy is None else {
            "images": accuracy.images,
            "float": _share(*accuracy.before),
            "quantised": _share(*accuracy.after),
            "drop": _share(*accuracy.drop),
            "mcnemar_p": accuracy.p,
        },
        "most_changed": [_change(each) for each in fidelity.changes[:MOST_CHANGED]],
        "cosines": {each.sample.name: round(each.cosine, 6) for each in fidelity.changes},
    }  # fmt: skip


def _share(value: float, interval: Interval) -> dict[str, Any]:
    return {"share": value, "interval": list(interval)}


def _change(change: Change) -> dict[str, Any]:
    return {
        "image": change.sample.name,
        "cosine": change.cosine,
        "class_id": change.class_id,
        "float": _answer(change.before),
        "quantised": _answer(change.after),
    }


def _answer(answer: Answer) -> dict[str, Any]:
    return asdict(answer)
