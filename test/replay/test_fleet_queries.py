"""The queries of docs/fleet.md give the right answers about runs whose answers are known."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")
duckdb = pytest.importorskip("duckdb")

from efv2_ros.classify.postprocess import Prediction  # noqa: E402
from efv2_ros.replay.parquet import write_parquet  # noqa: E402
from efv2_ros.replay.run import FrameResult, Run  # noqa: E402
from efv2_ros.vision.frame import Header  # noqa: E402

DOCUMENTS = Path(__file__).parents[2] / "docs"
FLOAT, INT8 = "efficientformerv2_s0_cards", "cards_int8"
CAT, DOG, OWL = 0, 1, 2
LABELS = dict(enumerate(("cat", "dog", "owl")))
START = 1_700_000_000


def blocks(document):
    text = (DOCUMENTS / document).read_text(encoding="utf-8")
    return re.findall(r"```sql\n(.*?)```", text, re.DOTALL)


VIEW, DISAGREEMENTS, SLOW_MINUTES, DROPS = blocks("fleet.md")


def test_both_languages_have_the_same_queries():
    assert blocks("fleet_cn.md") == blocks("fleet.md")


@pytest.mark.parametrize("document", ["fleet.md", "fleet_cn.md"])
def test_the_table_names_every_column(ask, document):
    text = (DOCUMENTS / document).read_text(encoding="utf-8")
    table = text[text.index("| `bag` |") :].partition("\n\n")[0]
    cells = re.findall(r"^\| (.*?) \|", table, re.MULTILINE)
    named = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    *columns, bag = ask("SELECT column_name FROM (DESCRIBE images)", {(FLOAT, "drive"): []})
    assert named == [name for (name,) in (bag, *columns)]


def seen(second, class_id, score=0.9, *, nanosec=0, infer=10.0):
    milliseconds = {"convert": 2.0, "infer": infer, "postprocess": 1.0, "wait": 500.0}
    prediction = Prediction((class_id,), (score,))
    return FrameResult(Header(START + second, nanosec), prediction, milliseconds=milliseconds)


def dropped(second, cause, reason):
    return FrameResult(Header(START + second), dropped=cause, reason=reason)


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Writes runs, by model and bag, and returns a query's answer about them."""
    monkeypatch.chdir(tmp_path)

    def ask(query, runs):
        for (model, bag), frames in runs.items():
            info = {"bag": f"/bags/{bag}", "topic": "/image", "model": model, "runtime": "onnx"}
            write_parquet(Run(info, LABELS, frames), Path("results"), bag)
        with duckdb.connect() as database:
            database.execute(VIEW)
            return database.execute(query).fetchall()

    return ask


def test_disagreements_are_counted_by_classes_with_the_surest_first(ask):
    first = [seen(second, CAT, 0.5 + second / 100) for second in range(10)]
    other = [
        *[replace(each, prediction=Prediction((DOG,), (0.99,))) for each in first[:3]],
        replace(first[3], prediction=Prediction((OWL,), (0.2,))),
        *first[4:],
    ]
    rows = ask(
        DISAGREEMENTS,
        {
            (FLOAT, "001"): first, (INT8, "001"): other,
            (FLOAT, "walk"): other[:1], (INT8, "walk"): first[:1],
            (FLOAT, "same"): first, (INT8, "same"): first,
            ("third", "same"): other,
        },
    )  # fmt: skip
    assert rows == [
        ("001", "cat", "dog", 3, ["1700000002.000000000", "1700000001.000000000"]),
        ("001", "cat", "owl", 1, ["1700000003.000000000"]),
        ("walk", "dog", "cat", 1, ["1700000000.000000000"]),
    ]


def test_images_are_paired_by_their_stamp_to_the_nanosecond(ask):
    images = [seen(0, CAT, nanosec=1), seen(0, DOG, nanosec=2), seen(0, DOG, nanosec=2),
              seen(0, OWL, nanosec=2)]  # fmt: skip
    assert ask(DISAGREEMENTS, {(FLOAT, "drive"): images, (INT8, "drive"): images}) == []
    changed = [*images[:3], seen(0, CAT, nanosec=2)]
    rows = ask(DISAGREEMENTS, {(FLOAT, "drive"): images, (INT8, "drive"): changed})
    assert rows == [("drive", "owl", "cat", 1, ["1700000000.000000002"])]


def test_a_class_disagrees_with_none_and_dropped_images_do_not_count(ask):
    nothing = replace(seen(0, CAT), prediction=Prediction((), ()))
    late = dropped(1, "decode", "cut off")
    rows = ask(
        DISAGREEMENTS,
        {(FLOAT, "drive"): [seen(0, CAT), seen(1, CAT)], (INT8, "drive"): [nothing, late]},
    )
    assert rows == [("drive", "cat", None, 1, ["1700000000.000000000"])]


def test_slow_minutes_come_first(ask):
    quiet = [seen(second, CAT) for second in range(0, 300, 3)]
    slow = [
        seen(second, CAT, infer=37.0 if 120 <= second < 180 else 10.0)
        for second in range(0, 300, 3)
    ]
    slow[41] = dropped(123, "decode", "cut off")
    rows = ask(SLOW_MINUTES, {(FLOAT, "quiet"): quiet, (FLOAT, "slow"): slow})
    # The p95 of the whole is that of 19 slow images in 199: 40 ms.
    assert rows[0] == (FLOAT, "slow", 2, 19, [37.0] * 3, [40.0] * 3, 1.0)
    assert rows[1:] == [
        (FLOAT, "quiet", minute, 20, [10.0] * 3, [13.0] * 3, 0.33) for minute in range(4)
    ]


def test_minutes_are_measured_against_the_whole_of_their_model(ask):
    def run(infer, minutes):
        return [
            seen(second, CAT, infer=infer * (4 if second // 60 in minutes else 1))
            for second in range(0, 6000, 10)
        ]

    rows = ask(SLOW_MINUTES, {(FLOAT, "drive"): run(10.0, {7}), (INT8, "drive"): run(1.0, ())})
    assert rows[0] == (FLOAT, "drive", 7, 6, [40.0] * 3, [43.0] * 3, round(43 / 13, 2))
    assert {row[-1] for row in rows[1:]} == {1.0}


def test_the_percentiles_are_those_of_the_minute(ask):
    frames = [seen(0, CAT, infer=float(number), nanosec=number) for number in range(101)]
    rows = ask(SLOW_MINUTES, {(FLOAT, "drive"): frames})
    assert rows == [(FLOAT, "drive", 0, 101, [50.0, 95.0, 99.0], [53.0, 98.0, 102.0], 1.0)]


def test_stamps_over_all_of_time_are_no_error(ask):
    first, last = (replace(seen(0, CAT), header=Header(sec, 0)) for sec in (-(2**31), 2**31 - 1))
    rows = ask(SLOW_MINUTES, {(FLOAT, "drive"): [first, last]})
    assert [row[2] for row in rows] == [0, (2**32 - 1) // 60]


@pytest.mark.parametrize("name", ["2026-11-27", "17", "007"])
def test_bags_that_are_named_as_numbers_or_days_keep_their_names(ask, name):
    ((_, bag, *_),) = ask(DROPS, {(FLOAT, name): [dropped(0, "decode", "cut off")]})
    assert bag == name


def test_drops_are_counted_by_cause_with_the_first_reason(ask):
    drive = [
        seen(0, CAT),
        dropped(1, "decode", "the first"),
        dropped(2, "size", "too large"),
        dropped(3, "decode", "the second"),
    ]
    rows = ask(DROPS, {(FLOAT, "drive"): drive, (FLOAT, "walk"): drive[2:3]})
    assert rows == [
        (FLOAT, "drive", "decode", 2, "1700000001.000000000", "the first"),
        (FLOAT, "drive", "size", 1, "1700000002.000000000", "too large"),
        (FLOAT, "walk", "size", 1, "1700000002.000000000", "too large"),
    ]
