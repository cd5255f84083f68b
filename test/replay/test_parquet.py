"""Runs as Parquet files, read back with pyarrow and DuckDB."""

import json
import resource
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

pa = pytest.importorskip("pyarrow")
duckdb = pytest.importorskip("duckdb")
from hypothesis import example, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from pyarrow import dataset, parquet  # noqa: E402

from efv2_ros.classify.postprocess import Prediction  # noqa: E402
from efv2_ros.files import FileWriteError  # noqa: E402
from efv2_ros.replay.parquet import ROW_GROUP, write_parquet  # noqa: E402
from efv2_ros.replay.run import FrameResult, Run, RunError  # noqa: E402
from efv2_ros.vision.frame import Header  # noqa: E402

INFO = {"bag": "/bags/drive", "topic": "/camera/image", "model": "s0", "runtime": "onnx 1.23.2"}
LABELS = {1: "金鱼", 2: "half \ud800 a pair", 3: 'a "cat"\nand\0more'}
MILLISECONDS = {"read": 0.5, "wait": 1.0, "convert": 0.1, "infer": 15.25, "postprocess": 0.2}
LIVE = {"wait": 1.0, "convert": 0.1, "infer": 2.0, "postprocess": 0.2, "publish": 1.5}

FRAMES = [
    FrameResult(Header(-(2**31), 0, "before 1970"), Prediction((3,), (1.0,))),
    FrameResult(
        Header(1_700_000_000, 123_456_789, "camera"),
        Prediction((1, 2, 99), (0.6, 0.1 + 0.2, 5e-324)),
        milliseconds=MILLISECONDS,
    ),
    FrameResult(Header(1_700_000_001, 5, "camera"), Prediction((), ()), milliseconds=LIVE),
    FrameResult(Header(1_700_000_001, 5, "\udcff"), Prediction((2,), (0.9,))),
    FrameResult(Header(1_700_000_002, 0), dropped="decode", reason="no JPEG: \udc80"),
    FrameResult(Header(2**31 - 1, 2**32 - 1, "camera"), Prediction((1,), (0.5,))),
]
RUN = Run(INFO, LABELS, FRAMES)

TEXTS = {1: "金鱼", 2: r"half \ud800 a pair", 3: 'a "cat"\nand\0more', 99: ""}
STAGES = ("read", "wait", "convert", "infer", "postprocess", "publish", "end_to_end")


def expected_row(frame, repetition=0):
    """The row of an image, without its stamp."""
    classes = [
        {"class_id": class_id, "label": TEXTS[class_id], "score": score}
        for class_id, score in zip(*frame.prediction, strict=True)
    ]
    return {
        "topic": "/camera/image",
        "model": "s0",
        "runtime": "onnx 1.23.2",
        "sec": frame.header.sec,
        "nanosec": frame.header.nanosec,
        "repetition": repetition,
        "frame_id": frame.header.frame_id.replace("\udcff", r"\udcff"),
        **(classes[0] if classes else {"class_id": None, "label": None, "score": None}),
        "classes": classes,
        **{f"{stage}_ms": frame.milliseconds.get(stage) for stage in STAGES},
        "dropped": frame.dropped or None,
        "reason": frame.reason.replace("\udc80", r"\udc80") or None,
    }


ROWS = [expected_row(frame, repetition=number == 3) for number, frame in enumerate(FRAMES)]


def queried(query):
    """The rows of a query, as DuckDB returns them to Python."""
    result = duckdb.connect().execute(query)
    names = [each[0] for each in result.description]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def bags(folder):
    """The names of the bags of a folder of results, as pyarrow and DuckDB read them."""
    hive = dataset.partitioning(pa.schema([("bag", pa.string())]), flavor="hive")
    table = dataset.dataset(folder, format="parquet", partitioning=hive).to_table()
    rows = queried(
        f"SELECT bag FROM read_parquet('{folder}/*/*.parquet', hive_types = {{'bag': VARCHAR}})"
    )
    return table.column("bag").to_pylist(), [row["bag"] for row in rows]


def test_pyarrow_reads_every_field(tmp_path):
    path = write_parquet(RUN, tmp_path / "new" / "results", "drive")
    assert path == tmp_path / "new/results/bag=drive/s0-camera.image.parquet"
    table = parquet.read_table(path, partitioning=None)
    assert table.drop_columns("stamp").to_pylist() == ROWS
    assert table.schema.field("stamp").type == pa.timestamp("ns", "UTC")
    stamps = table.column("stamp").cast(pa.int64()).to_pylist()
    assert stamps == [frame.header.nanoseconds for frame in FRAMES]
    assert json.loads(table.schema.metadata[b"run"]) == INFO


def test_duckdb_reads_every_field(tmp_path):
    path = write_parquet(RUN, tmp_path, "drive")
    rows = queried(f"SELECT * EXCLUDE stamp FROM '{path}'")
    assert rows == [{**row, "bag": "drive"} for row in ROWS]
    microseconds = queried(f"SELECT epoch_us(stamp) AS us FROM '{path}'")
    assert [row["us"] for row in microseconds] == [
        frame.header.nanoseconds // 1000 for frame in FRAMES
    ]


def test_an_empty_run_has_the_same_columns(tmp_path):
    whole = write_parquet(RUN, tmp_path, "drive")
    empty = write_parquet(Run(INFO, {}, []), tmp_path, "empty")
    assert parquet.read_schema(empty).equals(parquet.read_schema(whole))
    assert parquet.read_table(empty, partitioning=None).num_rows == 0
    counts = queried(f"SELECT count(*) AS images FROM '{tmp_path}/*/*.parquet'")
    assert counts == [{"images": len(FRAMES)}]


def test_a_run_without_a_description_can_be_written(tmp_path):
    path = write_parquet(Run({}, {}, FRAMES[:1]), tmp_path, "drive")
    (row,) = parquet.read_table(path, partitioning=None).to_pylist()
    assert (row["topic"], row["model"], row["label"]) == ("", "", "")


def test_the_same_run_gives_the_same_bytes(tmp_path):
    first, second = (write_parquet(RUN, tmp_path / each, "drive") for each in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_long_runs_have_several_groups_of_compressed_rows(tmp_path):
    frames = [
        FrameResult(Header(second), Prediction((1,), (0.5,))) for second in range(ROW_GROUP + 1)
    ]
    path = write_parquet(Run(INFO, LABELS, frames), tmp_path, "drive")
    metadata = parquet.ParquetFile(path).metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    assert [group.num_rows for group in groups] == [ROW_GROUP, 1]
    columns = {
        column.path_in_schema: column
        for column in map(groups[0].column, range(metadata.num_columns))
    }
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    texts = {path for path, each in columns.items() if each.physical_type == "BYTE_ARRAY"}
    assert len(texts) == 8
    assert texts <= {path for path, each in columns.items() if each.has_dictionary_page}
    stamps = parquet.read_table(path, columns=["sec"]).column("sec").to_pylist()
    assert stamps == list(range(ROW_GROUP + 1))


def test_runs_of_other_models_topics_and_bags_stand_beside_it(tmp_path):
    paths = {
        write_parquet(Run({**INFO, "model": model, "topic": topic}, LABELS, FRAMES), tmp_path, bag)
        for model in ("s0", "../s0", "_s0", ".s0")
        for topic in ("/image", "/left/image", "/left_image")
        for bag in ("drive", "walk")
    }
    assert len(paths) == 24
    assert {path.parent.parent for path in paths} == {tmp_path}
    for names in bags(tmp_path):
        assert sorted(set(names)) == ["drive", "walk"]
        assert len(names) == len(paths) * len(FRAMES)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("drive_2026-11-27", "bag=drive_2026-11-27"),
        ("two words", "bag=two%20words"),
        ("a/b=c%20", "bag=a%2Fb%3Dc%2520"),
        ("走廊", "bag=走廊"),
        ("..", "bag=%2E."),
        ("\udcff", "bag=%5Cudcff"),
    ],
)
def test_the_name_of_the_bag_is_percent_encoded(tmp_path, name, folder):
    assert write_parquet(RUN, tmp_path, name).parent == tmp_path / folder


# DuckDB takes `null`, in any case, for no value.
@given(st.text(min_size=1, max_size=20).filter(lambda name: name.lower() != "null"))
@settings(deadline=None, max_examples=50)
@example("two words")
@example("a/b=c%20+d")
@example("001")
@example("2026-11-27")
def test_readers_decode_the_name_of_the_bag(name):
    with tempfile.TemporaryDirectory() as folder:
        write_parquet(Run(INFO, LABELS, FRAMES[:1]), Path(folder), name)
        assert bags(folder) == ([name], [name])


def test_a_new_run_replaces_the_old_one(tmp_path):
    path = write_parquet(RUN, tmp_path, "drive")
    again = write_parquet(replace(RUN, frames=FRAMES[:2]), tmp_path, "drive")
    assert again == path
    assert parquet.read_table(path, partitioning=None).num_rows == 2
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "wrong",
    [
        FrameResult(Header(1), Prediction((2**64,), (0.5,))),
        FrameResult(Header(2**31), Prediction((1,), (0.5,))),
    ],
)
def test_numbers_that_are_too_large_leave_the_old_run(tmp_path, wrong):
    path = write_parquet(RUN, tmp_path, "drive")
    before = path.read_bytes()
    with pytest.raises(RunError, match=r"the run of drive cannot be written: .*too large"):
        write_parquet(replace(RUN, frames=[*FRAMES[:1] * ROW_GROUP, wrong]), tmp_path, "drive")
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@contextmanager
def largest_file(size):
    """Lets files grow to `size` bytes, as a full disk would."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_the_old_run(tmp_path):
    path = write_parquet(RUN, tmp_path, "drive")
    before = path.read_bytes()
    with largest_file(1000), pytest.raises(FileWriteError, match=r"cannot write .*too large"):
        write_parquet(RUN, tmp_path, "drive")
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "results").touch()
    with pytest.raises(FileWriteError, match=r"cannot make the folder .*results/bag=drive: Not a"):
        write_parquet(RUN, tmp_path / "results", "drive")


def test_a_name_that_is_too_long_is_an_error(tmp_path):
    with pytest.raises(FileWriteError, match="File name too long"):
        write_parquet(RUN, tmp_path, "a" * 300)


def test_without_pyarrow_a_sentence_says_how_to_install_it(tmp_path):
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from pathlib import Path\n"
        "from efv2_ros.errors import Efv2Error\n"
        "from efv2_ros.replay.parquet import write_parquet\n"
        "from efv2_ros.replay.run import Run\n"
        "try: write_parquet(Run({}, {}, []), Path('results'), 'drive')\n"
        "except Efv2Error as error: print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("Parquet files need the package pyarrow (")
    assert result.stdout.endswith("): pip install pyarrow\n")
    assert not list(tmp_path.iterdir())
