"""The option table: what it accepts, and that all that is made from it agrees with it."""

import math
import re
from dataclasses import fields

import pytest
from click.testing import CliRunner

from efv2_ros.classify.option_table import Change, Option, option, options_of
from efv2_ros.classify.options import (
    MODEL_OPTIONS,
    VIEW_OPTIONS,
    ModelRequest,
    ViewOptions,
    parse_rgb,
    parse_scale,
)
from efv2_ros.cli.main import main
from efv2_ros.node.options import (
    NODE_OPTIONS,
    PARAMETERS,
    NodeOptions,
    Settings,
    image_topics,
)
from efv2_ros.runtimes.base import RUNTIMES, RunOptions
from efv2_ros.vision.nv12 import Roi

GROUPS = [(ModelRequest, MODEL_OPTIONS), (ViewOptions, VIEW_OPTIONS), (NodeOptions, NODE_OPTIONS)]


@pytest.mark.parametrize(("declaring", "options"), GROUPS)
def test_every_attribute_is_an_option_with_the_same_default(declaring, options):
    assert list(options) == [each.name for each in fields(declaring)]
    for name, each in options.items():
        assert each.name == name
        assert each.attribute(each.default) == getattr(declaring(), name)
        assert isinstance(each.default, (bool, int, float, str))


def test_a_name_is_declared_once():
    assert len(PARAMETERS) == sum(len(options) for _, options in GROUPS)


def test_the_runtimes_have_the_same_defaults():
    assert ModelRequest().run_options() == RunOptions()


@pytest.mark.parametrize("name", PARAMETERS)
def test_descriptions_are_sentences_that_name_options(name):
    each = PARAMETERS[name]
    assert set(re.findall(r"{(\w+)}", each.template)) <= set(PARAMETERS)
    assert not {"{", "}"} & set(each.description)
    assert not each.description.endswith(".")
    assert "|" not in each.description, "it is a cell of a table"
    if "Seconds" in each.description:
        assert each.unit == "s"


def test_choices_are_all_there_are():
    assert MODEL_OPTIONS["runtime"].choices == ("auto", *RUNTIMES)
    assert VIEW_OPTIONS["fit"].choices == ("crop", "letterbox", "stretch")
    assert NODE_OPTIONS["queue_policy"].choices == ("latest", "all")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("top_k", 0, "top_k must be 1 to 1000, not '0'"),
        ("top_k", 10**400, "not '1000"),
        ("top_k", "5", "top_k is of type int, '5' is not"),
        ("top_k", True, "top_k is of type int"),
        ("top_k", 5.0, "top_k is of type int"),
        ("antialias", 1, "antialias is of type bool"),
        ("model_size", 0, "model_size is of type str"),
        ("score_threshold", math.nan, "score_threshold must be 0 to 1, not 'nan'"),
        ("infer_timeout", math.inf, "infer_timeout must be 0.01 to 60 s"),
        ("infer_timeout", math.nan, "infer_timeout must be 0.01 to 60 s"),
        ("stale_after", -math.inf, "stale_after must be 0.1 to 3600 s"),
        ("diagnostics_period", math.nan, "diagnostics_period must be"),
        ("fit", "zoom", "fit must be one of crop, letterbox, stretch, not 'zoom'"),
        ("roi", "1,2,3", "roi: "),
        ("mean", "1,nan,3", "mean: '1,nan,3' has a number that is not finite"),
        ("mean", "1,inf,3", "mean: "),
        ("mean", "1,1e39,3", "not finite"),  # infinite in float32
        ("scale", "nan,1,1", "scale: "),
        ("scale", "-inf,1,1", "scale: "),
        ("scale", "1,0,1", "scale: '1,0,1' has a factor of zero"),
        ("scale", "1,1e-60,1", "zero"),  # in float32
    ],
)
def test_values_that_are_refused(name, value, words):
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        PARAMETERS[name].check(value)
    assert len(str(caught.value)) < 250
    with pytest.raises(ValueError, match=re.escape(words)):
        Settings.of({name: value})


@pytest.mark.parametrize(
    ("name", "value", "attribute"),
    [
        ("top_k", 1000, 1000),
        ("stale_after", 5, 5),
        ("mean", "", None),
        ("mean", " 1, 2,3 ", (1.0, 2.0, 3.0)),
        ("scale", "-0.5,1,1", (-0.5, 1.0, 1.0)),
        ("roi", "1,2,3,4", Roi(1, 2, 3, 4)),
        ("roi", "  ", None),
    ],
)
def test_values_that_are_taken(name, value, attribute):
    assert PARAMETERS[name].attribute(value) == attribute


def test_three_numbers_are_read_and_others_are_not():
    assert parse_rgb("1,2.5,-3e0") == (1.0, 2.5, -3.0)
    for text in ("", "1,2", "1,2,3,4", "a,b,c", "1;2;3"):
        with pytest.raises(ValueError, match="three numbers"):
            parse_scale(text)


def test_an_option_tells_its_range():
    each = Option("x", 1.0, "X", limits=(0.5, 1_000_000_000), unit="m")
    assert each.range == "0.5 to 1000000000 m"
    assert Option("x", 1.0, "X").range == ""


def test_fields_that_are_no_option_are_left_out():
    from dataclasses import dataclass

    @dataclass
    class Some:
        plain: int = 1
        declared: int = option(2, "Declared", Change.START)

    assert [*options_of(Some)] == ["declared"]
    assert Some() == Some(1, 2)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--threshold", "nan"], "nan is not in the range 0.0<=x<=1.0"),
        (["--infer-timeout", "nan"], "nan is not in the range"),
        (["--top-k", "0"], "0 is not in the range"),
        (["--mean", "1,2,nan"], "not finite"),
        (["--scale", "0,0,0"], "a factor of zero"),
        (["--scale", "1,2"], "three numbers"),
        (["--roi", "0,0,0,1"], "empty"),
        (["--fit", "zoom"], "'crop', 'letterbox', 'stretch'"),
    ],
)
def test_the_command_line_refuses_the_same(photos, arguments, words):
    result = CliRunner().invoke(main, ["classify", str(photos[0]), *arguments])
    assert result.exit_code == 2
    assert words in result.output


def test_every_flag_of_the_table_is_offered_somewhere_under_its_default():
    offered = {}
    for command in main.commands.values():
        for each in command.params:
            offered.setdefault(each.opts[0], []).append((command.name, each))
    for name, each in {**MODEL_OPTIONS, **VIEW_OPTIONS}.items():
        for command, found in offered[each.flag]:
            if found.multiple or (command, name) == ("evaluate", "slots"):
                continue  # a measurement for each value; two at once are faster there
            if command == "train":
                continue  # its --size is that of the network to make, not a name of the catalog
            assert found.name == name, command
            if (command, name) == ("demo", "model_size"):
                assert found.default == ""  # it has a second choice where it was not asked
            elif each.parse is None and each.default is not False:
                assert found.default == each.default
            if each.limits:
                assert (found.type.min, found.type.max) == each.limits
            if each.choices:
                assert tuple(found.type.choices) == each.choices


def test_help_names_options_as_the_command_line_does():
    result = CliRunner().invoke(main, ["classify", "--help"], env={"COLUMNS": "500"})
    text = " ".join(result.output.split())
    assert "or a name from --catalog." in text
    assert "model_path" not in text
    assert "catalog_file" not in text


@pytest.mark.parametrize(
    ("image_topic", "cameras", "topics"),
    [
        ("/camera/image_raw", "", {"image": "/camera/image_raw"}),
        ("image_raw", "[left, right]",
         {"left/image": "left/image_raw", "right/image": "right/image_raw"}),
        ("/rig/{camera}/color", "a,b", {"a/image": "/rig/a/color", "b/image": "/rig/b/color"}),
    ],
)  # fmt: skip
def test_each_camera_has_its_topic(image_topic, cameras, topics):
    assert image_topics(image_topic, cameras) == topics


def test_cameras_cannot_share_a_topic():
    with pytest.raises(ValueError, match=r"is the topic of one camera: .* write \{camera\}"):
        image_topics("/image", "a,b")


def test_a_cameras_own_options_come_before_those_of_all():
    settings = Settings.of(
        {"cameras": "a,b", "fit": "stretch", "frame_id": "rig", "a.fit": "crop",
         "b.roi": "1,2,3,4", "b.transport": "compressed", "b.frame_id": "b_optical"}
    )  # fmt: skip
    a, b = settings.streams["a"], settings.streams["b"]
    assert (a.topic, a.transport, a.frame_id) == ("a/image", "raw", "rig")
    assert (b.topic, b.transport, b.frame_id) == ("b/image", "compressed", "b_optical")
    assert (a.view.fit, a.view.roi) == ("crop", None)
    assert (b.view.fit, tuple(b.view.roi)) == ("stretch", (1, 2, 3, 4))
    assert settings.views == {"a": a.view, "b": b.view}
    with pytest.raises(ValueError, match=r"a\.fit must be one of , crop"):
        Settings.of({"cameras": "a", "a.fit": "zoom"})


def test_a_list_of_names_stands_for_a_text_with_commas():
    assert PARAMETERS["cameras"].plain(["a", "b"]) == "a,b"
    assert PARAMETERS["cameras"].plain("a") == "a"
    assert PARAMETERS["cameras"].plain(7) == 7
    assert PARAMETERS["roi"].plain(["1"]) == ["1"]
