"""Quantises an ONNX model and compiles it for the RDK X5, and reports what the compiler did."""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from channel import Channel, serve
from checks import RequestError, check
from onnx_file import unify
from ranges import choose_ranges
from results import estimate, gelus, node_reports
from watched import killed_child, watch_children

PREFIX = "model"
MARCH = "bayes-e"
MSE = "mse"
STEPS = (
    # The quantiser's step, what it does, and the shares of the whole at its begin and end:
    # of a compilation, and of quantising alone.
    ("prepare", "reading the model", (0.02, 0.05), (0.05, 0.15)),
    ("optimize", "rewriting the model", (0.05, 0.08), (0.15, 0.25)),
    ("calibrate", "calibrating the model", (0.08, 0.25), (0.25, 0.65)),
    ("quantize", "quantising the model", (0.25, 0.33), (0.65, 0.98)),
    ("compile", "compiling the model", (0.33, 0.9), (0.98, 1.0)),
)
CHOOSING = ((0.17, 0.25), (0.45, 0.65))
"""The same shares of this package's own step, the end of a calibration of type `mse`."""


class Quantized(Exception):
    """Ends the vendor's work after the quantised model, where no more was asked for."""


def configuration(request: dict[str, Any]) -> dict[str, Any]:
    """Describe the request in the vendor's terms, as `hb_mapper makertbin` reads them."""
    optimization = [
        name
        for name, wanted in (
            ("set_all_nodes_int16", request["all_int16"]),
            ("asymmetric", request["asymmetric"]),
            ("bias_correction", request["bias_correction"]),
        )
        if wanted
    ]
    kind = request["calibration_type"]
    calibration = {
        "cal_data_dir": request["calibration"],
        "cal_data_type": "float32",
        "preprocess_on": False,
        # The vendor does not know `mse`: `choose_ranges` comes after its calibration.
        "calibration_type": "max" if kind == MSE else kind,
        "per_channel": request["per_channel"],
    }
    if request["max_percentile"] is not None:
        calibration["max_percentile"] = request["max_percentile"]
    if optimization:
        calibration["optimization"] = ";".join(optimization)
    limited = request["nv12_range"] == "limited"
    names = (("ON", "on"), ("InputType", "input_type"), ("OutputType", "output_type"))
    return {
        "model_parameters": {
            "onnx_model": request["model"],
            "march": MARCH,
            "working_dir": request["folder"],
            "output_model_file_prefix": PREFIX,
            "node_info": {
                rule["name"]: {key: rule[name] for key, name in names if rule[name] is not None}
                for rule in request["nodes"]
            },
        },
        "input_parameters": {
            "input_type_rt": "nv12",
            "input_type_train": "rgb",
            "input_layout_train": "NCHW",
            "input_space_and_range": "bt601_video" if limited else "regular",
            "norm_type": "data_mean_and_scale",
            "mean_value": " ".join(map(repr, request["mean"])),
            "scale_value": " ".join(map(repr, request["scale"])),
        },
        "calibration_parameters": calibration,
        "compiler_parameters": {
            "compile_mode": request["compile_mode"],
            "optimize_level": request["optimize_level"],
            "jobs": request["jobs"] or len(os.sched_getaffinity(0)),
            "debug": True,  # names of layers in the estimate
        },
    }


def follow(builder: type, channel: Channel, quantize_only: bool, own_ranges: bool) -> None:
    """Have the vendor's builder tell of each of its steps."""
    for name, doing, compiling, quantising in STEPS:
        begin, end = quantising if quantize_only else compiling
        if name == "calibrate" and own_ranges:
            end = CHOOSING[quantize_only][0]
        step = getattr(builder, name)

        def told(
            *arguments: Any, step: Any = step, now: Any = (doing, begin, end), **options: Any
        ) -> Any:
            channel.step(*now)
            return step(*arguments, **options)

        setattr(builder, name, told)


def calibrate_better(builder: type, channel: Channel, quantize_only: bool) -> None:
    """Have the ranges of the vendor's calibration replaced by those of least error."""
    calibrate = builder.calibrate  # type: ignore[attr-defined]
    begin, end = CHOOSING[quantize_only]

    def with_better_ranges(*arguments: Any, **options: Any) -> Any:
        found = calibrate(*arguments, **options)
        channel.step("choosing the ranges of the activations", begin, end)
        choose_ranges(found[0], found[2], channel.progress)
        return found

    builder.calibrate = with_better_ranges  # type: ignore[attr-defined]


def one_by_one(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Have a method of the vendor's executor run one image at a time."""

    def run_one_by_one(self: Any, data: Any, batch_size: int = 1, **options: Any) -> Any:
        return forward(self, data, batch_size=1, **options)

    return run_one_by_one


@contextlib.contextmanager
def straight_to_the_log(*_: Any) -> Iterator[None]:
    """Replace the vendor's detour of its programs' output through its logger."""
    yield


def run(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """Compile the model of the request; all files go into its folder."""
    started = time.monotonic()
    folder, quantize_only = Path(request["folder"]), request["quantize_only"]
    channel.step("loading the toolchain", 0.0, 0.02)
    check(request)
    # Of an earlier model, whose estimate would count.
    for pattern in (f"{PREFIX}*", "*_subgraph_*"):
        for file in folder.glob(pattern):
            file.unlink()
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    watch_children()
    listed = os.listdir
    # The order of the images is that of their names.
    os.listdir = lambda *path: sorted(listed(*path))  # type: ignore[assignment]

    from hbdk import __version__ as compiler_version
    from horizon_nn.api import version as quantizer_version
    from horizon_nn.builder import model_builder
    from horizon_nn.executor.ort import ORTExecutorBase
    from horizon_tc_ui import hb_mapper_makertbin
    from horizon_tc_ui.version import __version__ as mapper_version

    # The vendor tries images by eight first, which fails for models with a fixed batch.
    ORTExecutorBase.forward_with_batch = one_by_one(ORTExecutorBase.forward_with_batch)
    own_ranges = request["calibration_type"] == MSE
    follow(model_builder.ModelBuilder, channel, quantize_only, own_ranges)
    if own_ranges:
        calibrate_better(model_builder.ModelBuilder, channel, quantize_only)
    compare = model_builder.calculate_similarity

    def compare_unless_in_a_hurry(**models: Any) -> Any:
        if quantize_only:  # it takes as long as quantising
            return {}, {}
        channel.step("comparing the quantised model with the float model", 0.9, 0.97)
        return compare(**models)

    model_builder.calculate_similarity = compare_unless_in_a_hurry
    built: list[Any] = []
    build = hb_mapper_makertbin.build_onnx

    def build_and_keep(**parameters: Any) -> Any:
        if quantize_only:
            parameters["skip_step"] = ["skip_compiler"]
        built.append(build(**parameters, verbose=not quantize_only, return_builder=True))
        if quantize_only:
            raise Quantized
        return built[0].hybrid_model.proto

    hb_mapper_makertbin.build_onnx = build_and_keep
    hb_mapper_makertbin.CStdOutHook = straight_to_the_log
    settings = folder / "compile.yaml"
    settings.write_text(yaml.safe_dump(configuration(request), sort_keys=False))
    try:
        hb_mapper_makertbin.MakertbinRunner(str(settings), "onnx").run(mapper_version)
    except BaseException as error:
        if not (built and quantize_only):
            killed = killed_child()
            if killed:
                raise RuntimeError(killed) from error
            raise
    channel.step("reading the compiler's report", 0.98 if quantize_only else 0.97, 1.0)
    names = unify(folder / f"{PREFIX}_quantized_model.onnx")
    total, fused = gelus(built[0])
    return {
        "bin": None if quantize_only else str(folder / f"{PREFIX}.bin"),
        "quantized": str(folder / f"{PREFIX}_quantized_model.onnx"),
        "original_float": str(folder / f"{PREFIX}_original_float_model.onnx"),
        "optimized": str(folder / f"{PREFIX}_optimized_float_model.onnx"),
        "calibrated": str(folder / f"{PREFIX}_calibrated_model.onnx"),
        "nodes": node_reports(built[0], names),
        "march": built[0].march,
        "gelus": total,
        "gelus_fused": fused,
        "estimate": None if quantize_only else estimate(folder, built[0], names),
        "seconds": time.monotonic() - started,
        "versions": {
            "hb_mapper": mapper_version,
            "horizon_nn": quantizer_version,
            "hbdk": compiler_version,
            "python": ".".join(map(str, sys.version_info[:3])),
        },
    }


if __name__ == "__main__":
    serve(run, RequestError)
