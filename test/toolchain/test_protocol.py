"""Requests and answers as they go over the wire."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from efv2_ros.toolchain.environment import ToolchainError
from efv2_ros.toolchain.protocol import (
    CompileRequest,
    CompileResult,
    Failure,
    NodeRule,
    Progress,
    encode,
    parse,
)
from efv2_ros.toolchain.typed_json import decode

RECORDED = Path(__file__).with_name("recorded")

REQUEST = CompileRequest(
    model=Path("/m/s0.onnx"),
    calibration=Path("/c"),
    mean=(123.675, 116.28, 103.53),
    scale=(0.01712475, 0.017507, 0.01742919),
    nodes=(NodeRule("/a/Softmax", "BPU", "int16", None),),
    max_percentile=0.9999,
    optimize_level="O1",
)


def recorded(name):
    return json.loads((RECORDED / name).read_text())


def test_a_request_is_what_was_recorded():
    assert json.loads(encode(REQUEST, folder="/out")) == recorded("compile_request.json")


def test_a_request_survives_the_way():
    sent = json.loads(encode(REQUEST))
    del sent["version"]
    assert decode(CompileRequest, sent) == REQUEST
    assert decode(CompileRequest, {**sent, "max_percentile": None}) == replace(
        REQUEST, max_percentile=None
    )


def test_a_result_is_read():
    message = parse((RECORDED / "compile_result.json").read_text().replace("\n", ""))
    result = decode(CompileResult, {**message, "log": "/out/toolchain.log"})
    assert result.bin == Path("/out/model.bin")
    assert result.nodes[0].cosine == 0.999912 and result.nodes[1].cosine is None
    assert result.estimate.layers[1].waits_for == "layout"
    assert result.estimate.milliseconds == 3  # an integer is a number too
    assert result.versions["hbdk"] == "3.49.15"


def test_progress_and_failures_are_read():
    fields = {"step": "compiling", "begin": 0.2, "end": 0.7, "fraction": 0.5}
    line = json.dumps({"version": 1, "kind": "progress", **fields})
    assert parse(line) == Progress("compiling", 0.2, 0.7, 0.5)
    assert parse(line).total == pytest.approx(0.45)
    assert parse('{"version": 1, "kind": "failure", "step": "", "reason": "no"}') == Failure(
        "", "no"
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "no message"),
        ("Traceback", "no message"),
        ("[1]", "no message"),
        ('{"version": 1}', "no message"),
        ('{"version": 2, "kind": "result"}', "speaks version 2"),
        ('{"version": 1, "kind": "poem"}', "kind 'poem'"),
        ('{"version": 1, "kind": "progress", "step": "a"}', "without begin"),
        ('{"version": 1, "kind": "failure", "step": 3, "reason": ""}', "Failure.step = 3"),
        ('{"version": 1, "kind": "failure", "step": "", "reason": "", "x": 1}', "unknown x"),
    ],
)
def test_nonsense_gets_a_sentence(line, words):
    with pytest.raises(ToolchainError, match=words) as caught:
        parse(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("march",), 3, "march = 3"),
        (("gelus",), True, "gelus = True"),
        (("gelus",), "35", "gelus = '35'"),
        (("nodes",), {}, "nodes = {}"),
        (("nodes", 0, "unit"), "GPU", r"nodes\[0\].unit = 'GPU'"),
        (("nodes", 0), [], r"nodes\[0\] = \[\]"),
        (("estimate", "layers", 0, "microseconds"), "3", r"layers\[0\].microseconds"),
        (("versions",), [], r"versions = \[\]"),
        (("versions", "hbdk"), None, "versions.hbdk = None"),
        (("seconds",), True, "seconds = True"),
    ],
)
def test_a_field_of_another_type_is_named(path, value, words):
    message = recorded("compile_result.json")
    del message["version"], message["kind"]
    place = message
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(ToolchainError, match=words):
        decode(CompileResult, {**message, "log": "/l"})
