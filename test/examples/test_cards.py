"""The card images: deterministic, within the limits that are documented, apart by split."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]

# This folder is called `examples` too, and may be found first.
sys.path.insert(0, str(ROOT))

from examples.cards import backgrounds, camera, objects, render, sheet  # noqa: E402
from examples.cards.classes import CLASSES, glyphs  # noqa: E402
from examples.cards.placement import MAX_TILT, MIN_VISIBLE, SIZES, covered, place  # noqa: E402
from examples.cards.render import RenderError, compose, render_folder  # noqa: E402

SPLITS = ("train", "calibration", "test")
SIZE = (64, 64)


def files(folder):
    """The bytes of all images below a folder, by their names."""
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*.jpg")}


def inside(corners, size):
    """Pixels whose centres lie in a convex polygon; OpenCV's drawing adds those on its edge."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]] + 0.5
    edges = zip(corners, np.roll(corners, -1, axis=0), strict=True)
    sides = [(b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0]) > 0 for a, b in edges]
    return np.all(sides, axis=0) | ~np.any(sides, axis=0)


def run(*arguments, **options):
    command = [sys.executable, "-m", "examples.cards.render", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, **options)


def test_there_are_100_classes_with_names_and_pictures_of_their_own():
    assert len(CLASSES) == 100
    for field in ("emoji", "name", "name_cn", "folder"):
        assert len({getattr(each, field) for each in CLASSES}) == 100, field
    assert sorted(each.folder for each in CLASSES) == [each.folder for each in CLASSES]
    assert all(f"U+{ord(each.emoji):04X}" == each.code_point for each in CLASSES)
    groups = [each.group for each in CLASSES]
    assert {groups.count(each) for each in groups} == {10}
    pictures = glyphs()
    assert pictures.shape == (100, 136, 136, 4)
    assert len({each.tobytes() for each in pictures}) == 100
    assert (pictures[..., 3].mean(axis=(1, 2)) > 25).all()  # none is empty
    assert (pictures[..., :3] <= pictures[..., 3:]).all()  # premultiplied


def test_names_and_pictures_are_those_of_the_font_and_the_name_lists():
    make_emoji = importlib.import_module("examples.cards.make_emoji")
    pytest.importorskip("PIL")
    try:
        english, chinese = (make_emoji.names(each) for each in ("en", "zh"))
        drawn = make_emoji.draw(CLASSES[26].emoji)  # has a translucent glow
    except make_emoji.MissingError as error:
        pytest.skip(str(error))
    assert [each.emoji for each in CLASSES] == list("".join(make_emoji.GROUPS.values()))
    assert all(each.name == english[each.emoji] for each in CLASSES)
    assert all(each.name_cn == chinese[each.emoji] for each in CLASSES)
    atlas = cv2.imread(str(ROOT / "examples/cards/emoji.png"), cv2.IMREAD_UNCHANGED)
    cell = cv2.cvtColor(atlas[256:384, 6 * 136 : 7 * 136], cv2.COLOR_BGRA2RGBA)
    # Another release of the font may draw a little differently.
    assert np.abs(cell.astype(int) - drawn).mean() < 20


@pytest.mark.parametrize("split", SPLITS)
def test_the_same_arguments_give_the_same_image(split):
    first = compose(12, 3, split, SIZE, 1.0, 4)
    assert first.data == compose(12, 3, split, SIZE, 1.0, 4).data
    np.testing.assert_array_equal(
        render.render(12, 3, split, SIZE, 1.0, 4),
        cv2.imdecode(np.frombuffer(first.data, np.uint8), cv2.IMREAD_COLOR),
    )


def test_images_do_not_depend_on_what_was_rendered_before_or_on_other_random_numbers():
    first = compose(7, 0, "test", SIZE, number=1).data
    np.random.seed(5)  # noqa: NPY002
    cv2.setRNGSeed(5)
    compose(50, 9, "train", (80, 40), 2.0)
    assert compose(7, 0, "test", SIZE, number=1).data == first


def test_each_argument_changes_the_image():
    usual = {"class_index": 1, "seed": 0, "split": "train", "difficulty": 1.0, "number": 0}
    others = {"class_index": 2, "seed": 1, "split": "test", "difficulty": 0.5, "number": 1}
    first = compose(**usual, size=SIZE).data
    for name, other in others.items():
        assert compose(**usual | {name: other}, size=SIZE).data != first, name


@pytest.mark.parametrize("class_index", range(0, 100, 9))
def test_the_object_is_of_the_class_that_was_asked_for(class_index):
    """Seen straight from above, an easy image is nearest to its own class's picture."""
    scene = compose(class_index, 0, "test", (160, 160), 0.0)
    image = cv2.imdecode(np.frombuffer(scene.data, np.uint8), cv2.IMREAD_COLOR)
    to_picture = np.array([[136, 0, 67.5], [0, 136, 67.5], [0, 0, 1]])
    matrix = to_picture @ np.linalg.inv(scene.placement.matrix)
    seen = cv2.warpPerspective(image, matrix, (136, 136)).astype(np.float32)
    solid = (glyphs()[..., 3:] == 255).astype(np.float32)
    errors = (np.abs(seen - glyphs()[..., :3]) * solid).sum(axis=(1, 2, 3))
    assert np.argmin(errors / solid.sum(axis=(1, 2, 3))) == class_index


def test_splits_differ_in_more_than_the_background():
    placements = {compose(3, 0, split, SIZE).placement.share for split in SPLITS}
    assert len(placements) == 3


def test_the_camera_blurs_and_changes_the_light():
    texture = backgrounds.FAMILIES["tiles"](np.random.default_rng(0), 128, 128)

    def sharpness(image):
        return cv2.Laplacian(image, cv2.CV_32F).std()

    blurred, exposed = (
        [step(np.random.default_rng(seed)) for seed in range(60)]
        for step in (
            lambda rng: camera.blur(rng, texture, 128, 1.0),
            lambda rng: camera.expose(rng, texture, 1.0),
        )
    )
    ratios = [sharpness(each) / sharpness(texture) for each in blurred]
    assert 0.3 < np.mean(np.array(ratios) < 0.8) < 0.9
    assert max(ratios) <= 1
    brightness = [each.mean() / texture.mean() for each in exposed]
    assert min(brightness) < 0.6
    assert max(brightness) > 1.15
    casts = [np.ptp(each.mean(axis=(0, 1)) / texture.mean(axis=(0, 1))) for each in exposed]
    assert np.mean(casts) > 0.05
    for step in (
        lambda rng: camera.blur(rng, texture, 128, 0.0),
        lambda rng: camera.expose(rng, texture, 0.0),
    ):
        np.testing.assert_array_equal(step(np.random.default_rng(0)), texture)


def test_the_whole_image_goes_through_the_camera(monkeypatch):
    called = []
    for name in ("blur", "expose", "jpeg"):
        step = getattr(camera, name)

        def noted(*arguments, name=name, step=step):
            called.append(name)
            return step(*arguments)

        monkeypatch.setattr(camera, name, noted)
    compose(0, 0, "train", SIZE)
    assert called == ["blur", "expose", "jpeg"]


def test_a_cut_out_shape_appears_where_its_placement_says():
    glyph = np.full((136, 136, 4), 255, np.uint8)  # a white square
    for seed in range(20):
        placement = place(np.random.default_rng(seed), (200, 150), 1.0)
        side = round(min(136, max(12, 1.1 * placement.share * 150)))
        image = np.zeros((150, 200, 3), np.uint8)
        texture = cv2.resize(glyph, (side, side))
        objects.put(image, objects.Sprite(texture, side, (side / 2, side / 2)), placement.matrix)
        expected = inside(placement.corners, (200, 150))
        wrong = (image[..., 0] > 127) != expected
        assert wrong.sum() <= 0.012 * expected.sum() + 6


def test_sizes_angles_and_what_is_visible_lie_in_the_documented_limits():
    shares = []
    for number in range(900):
        size = ((256, 256), (640, 480), (60, 200))[number % 3]
        difficulty = (0.0, 0.5, 1.0, 2.0)[number % 4]
        placement = place(np.random.default_rng(number), size, difficulty)
        area = cv2.contourArea(placement.corners.astype(np.float32))
        assert placement.share == pytest.approx(np.sqrt(area) / min(size), rel=1e-3)
        assert SIZES[0] <= placement.share <= SIZES[1]
        assert placement.tilt <= min(1, difficulty) * MAX_TILT
        assert placement.visible >= MIN_VISIBLE
        # The part of the square inside the frame, counted in pixels.
        if number % 10 == 0 and placement.share > 0.2:
            counted = inside(placement.corners, size).sum() / area
            near = 0.01 + 1.5 / np.sqrt(area)
            assert counted == pytest.approx(placement.visible, abs=near)
        if difficulty == 1.0:
            shares.append(placement.share)
    # Log-uniform: as many between 0.2 and 0.4 as between 0.4 and 0.8.
    small, large = (np.mean([low < each < 2 * low for each in shares]) for low in (0.2, 0.4))
    assert small == pytest.approx(large, abs=0.1)
    assert small > 0.3


def test_what_covers_the_object_leaves_enough_of_it():
    hidden = []
    size = (384, 384)
    for number in range(100):
        rng = np.random.default_rng(number)
        placement = place(rng, size, 1.0)
        image = np.zeros((384, 384, 3), np.uint8)
        part = objects.add_occluders(rng, image, placement, 1.0)
        drawn = (image.max(axis=-1) > 0) & inside(placement.corners, size)
        # Shapes may lie over each other, and have soft edges.
        side = placement.share * 384
        assert drawn.sum() / side**2 <= part + 0.01 + 6 / side
        assert placement.visible - part >= MIN_VISIBLE - 1e-4
        hidden.append(part)
    assert np.mean(np.array(hidden) > 0.02) > 0.3


def test_covered_tells_the_part_of_the_square():
    placement = place(np.random.default_rng(0), (100, 100), 0.0)
    left, top = placement.corners.min(axis=0)
    right, bottom = placement.corners.max(axis=0)
    half = np.array([[left, top], [(left + right) / 2, top], [(left + right) / 2, bottom],
                     [left, bottom]])  # fmt: skip
    assert covered(placement, half, (100, 100)) == pytest.approx(0.5, abs=0.02)
    assert covered(placement, half - 1000, (100, 100)) == 0


def test_splits_share_no_background():
    seen = {}
    for split in SPLITS:
        scenes = [compose(number % 100, 0, split, (32, 32), number=number // 100)
                  for number in range(120)]  # fmt: skip
        seen[split] = {each.texture_seed for each in scenes}
        assert {each.family for each in scenes} == set(backgrounds.SPLIT_FAMILIES[split])
        assert {each >> 40 for each in seen[split]} == {backgrounds.SPLITS[split]}
        assert len(seen[split]) == 120
    assert not seen["train"] & seen["test"]
    assert not seen["train"] & seen["calibration"]
    train, test = (set(backgrounds.SPLIT_FAMILIES[each]) for each in ("train", "test"))
    assert len(test - train) >= 2
    assert len(train - test) >= 2


@pytest.mark.parametrize("family", backgrounds.FAMILIES)
@pytest.mark.parametrize("size", [(32, 200), (200, 32), (101, 77)])
def test_backgrounds_fill_any_rectangle(family, size):
    drawn = [backgrounds.FAMILIES[family](np.random.default_rng(seed), *size) for seed in range(4)]
    for image in drawn:
        assert (image.shape, image.dtype) == ((size[1], size[0], 3), np.uint8)
        assert image.flags.c_contiguous
    assert len({each.tobytes() for each in drawn}) == 4


@pytest.mark.parametrize("size", [(32, 32), (640, 480), (33, 257), (300, 40)])
@pytest.mark.parametrize("difficulty", [0.0, 1.0, 2.0])
def test_images_have_the_size_that_was_asked_for(size, difficulty):
    for class_index in (0, 99):
        image = render.render(class_index, 0, "test", size, difficulty)
        assert (image.shape, image.dtype) == ((size[1], size[0], 3), np.uint8)


def test_difficulty_makes_images_worse():
    """Fine detail, what blur takes away, and how much JPEG leaves of it."""

    def detail(difficulty):
        return np.mean([len(compose(each, 0, "test", (128, 128), difficulty).data)
                        for each in range(60)])  # fmt: skip

    assert detail(0.0) > 1.3 * detail(1.0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"class_index": 100}, "a class is 0 to 99, not 100"),
        ({"class_index": -1}, "a class is 0 to 99, not -1"),
        ({"split": "val"}, "the split is one of train, calibration, test, not 'val'"),
        ({"size": (31, 256)}, "width and height are 32 to 4096 pixels, not 31x256"),
        ({"size": (256, 5000)}, "width and height are 32 to 4096 pixels, not 256x5000"),
        ({"difficulty": 2.5}, "the difficulty is 0 to 2, not 2.5"),
        ({"difficulty": float("nan")}, "the difficulty is 0 to 2, not nan"),
        ({"seed": -1}, "seed and number are 0 or more, not -1 and 0"),
        ({"number": -2}, "seed and number are 0 or more, not 0 and -2"),
    ],
)
def test_bad_arguments_are_named(changed, message):
    with pytest.raises(RenderError, match=f"^{message}$"):
        render.render(**{"class_index": 0, "seed": 0, "split": "train"} | changed)


def test_a_folder_is_balanced_and_goes_on_where_it_was_left(tmp_path):
    arguments = {"seed": 2, "split": "train", "size": SIZE, "difficulty": 1.0}
    calls = []
    out = tmp_path / "deep" / "cards"
    assert render_folder(out, 250, **arguments, progress=lambda *each: calls.append(each)) == 250
    assert calls[0] == (0, 250)
    assert calls[-1] == (250, 250)
    whole = files(out)
    assert [len(list((out / each.folder).iterdir())) for each in CLASSES] == [3] * 50 + [2] * 50
    assert whole["001_cat_face/000002.jpg"] == compose(1, 2, "train", SIZE, 1.0, 2).data

    removed = sorted(whole)[::2]
    for each in removed:
        (out / each).unlink()
    kept = out / sorted(whole)[1]
    before = kept.stat().st_mtime_ns
    assert render_folder(out, 250, **arguments, workers=2) == 125
    assert files(out) == whole
    assert kept.stat().st_mtime_ns == before
    assert render_folder(out, 260, **arguments) == 10  # more of the same
    assert whole.items() <= files(out).items()


def test_a_folder_with_other_content_is_refused(tmp_path):
    arguments = {"seed": 0, "split": "train", "size": SIZE, "difficulty": 1.0}
    out = tmp_path / "cards"
    render_folder(out, 2, **arguments)
    before = files(out)
    for changed in ({"seed": 1}, {"split": "test"}, {"size": (65, 64)}, {"difficulty": 0.5}):
        with pytest.raises(RenderError, match="holds images with other settings"):
            render_folder(out, 4, **arguments | changed)
    assert files(out) == before
    (out / render.SETTINGS).write_text("{")
    with pytest.raises(RenderError, match="damaged"):
        render_folder(out, 4, **arguments)
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(RenderError, match="not empty and holds no card images"):
        render_folder(tmp_path, 4, **arguments)
    for images, workers in ((0, 1), (1, 0)):
        with pytest.raises(RenderError, match="1 or more"):
            render_folder(tmp_path / "new", images, **arguments, workers=workers)
    assert not (tmp_path / "new").exists()


def test_an_interrupted_command_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    calls = iter(range(5))

    def interrupted(*arguments):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return compose(*arguments)

    monkeypatch.setattr(render, "compose", interrupted)
    out = tmp_path / "cards"
    assert render.main([str(out), "--split", "test", "--images", "20", "--side", "32"]) == 130
    assert capsys.readouterr().err.endswith("stopped; the same command goes on from here\n")
    assert len(files(out)) == 5


def test_ctrl_c_ends_all_workers_tidily(tmp_path):
    out = tmp_path / "cards"
    process = run(
        out, "--split", "test", "--images", 100_000, "--side", 64, "--workers", 2,
        start_new_session=True,
    )  # fmt: skip
    end = time.monotonic() + 60
    while not list(out.rglob("*.jpg")):
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # a terminal's Ctrl-C reaches the workers too
    _, errors = process.communicate(timeout=60)  # ends with the last worker, which has stderr too
    assert process.returncode == 130
    assert errors.endswith("stopped; the same command goes on from here\n")
    assert "Traceback" not in errors
    assert not list(out.rglob("*.part"))
    for data in files(out).values():
        assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (64, 64, 3)


def test_the_command_renders_other_shapes_and_names_errors(tmp_path, capsys):
    out = tmp_path / "cards"
    common = [str(out), "--split", "calibration", "--images", "3"]
    assert render.main([*common, "--size", "96x72", "--seed", "4", "--difficulty", "0.5"]) == 0
    expected = compose(2, 4, "calibration", (96, 72), 0.5).data
    assert (out / "002_lion" / "000000.jpg").read_bytes() == expected
    assert json.loads((out / render.SETTINGS).read_text())["size"] == [96, 72]
    assert "3 of 3 images" in capsys.readouterr().err
    assert render.main([*common, "--side", "5"]) == 2
    assert "width and height are 32 to 4096 pixels, not 5x5" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        render.main([*common, "--size", "96"])
    assert "a size is WIDTHxHEIGHT, not '96'" in capsys.readouterr().err


def test_a_sheet_shows_images_in_rows():
    drawn = sheet.sheet("test", 5, 98, 3, 32, 0, 1.0)
    assert drawn.shape == (64, 96, 3)
    expected = render.render(0, 0, "test", (256, 256), 1.0, 1)
    expected = cv2.resize(expected, (32, 32), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(drawn[:32, 64:], expected)
    assert not drawn[32:, 64:].any()


def test_the_sheet_command_writes_a_picture_and_names_errors(tmp_path, capsys):
    options = ["--images", "3", "--columns", "2", "--side", "40", "--split", "test"]
    assert sheet.main([str(tmp_path / "sheet.png"), *options]) == 0
    picture = cv2.imread(str(tmp_path / "sheet.png"))
    np.testing.assert_array_equal(picture, sheet.sheet("test", 3, 0, 2, 40, 0, 1.0))
    for name in ("sheet.unknown", "missing/sheet.png"):
        assert sheet.main([str(tmp_path / name), *options]) == 2
        assert capsys.readouterr().err.startswith(f"sheet: cannot write {tmp_path / name}")
    assert sheet.main([str(tmp_path / "sheet.png"), "--columns", "0"]) == 2
    assert "sheet: images, columns and side are 1 or more" in capsys.readouterr().err


def test_the_printed_cards_have_all_pictures_and_names(monkeypatch):
    pytest.importorskip("PIL")
    printing = importlib.import_module("examples.cards.print")
    monkeypatch.setattr(printing, "DPI", 80)
    with monkeypatch.context() as patch:
        patch.setattr(printing, "FONTS", (Path("/nowhere/font.ttc"),))
        with pytest.raises(printing.PrintError, match="fonts-wqy-microhei"):
            printing.pages()
    try:
        pages = printing.pages()
    except printing.PrintError as error:
        pytest.skip(str(error))
    assert len(pages) == 9
    for index, page in enumerate(pages):
        grey = np.asarray(page.convert("L"))
        on_page = min(12, 100 - 12 * index)
        # Margins of 12 and 12.5 mm; a card is 62 mm wide and 68 mm high.
        for place_on_page in range(12):
            row, column = divmod(place_on_page, 3)
            left, top = ((12 + 62 * column) / 25.4 * 80, (12.5 + 68 * row) / 25.4 * 80)
            card = grey[int(top) + 4 : int(top) + 211, int(left) + 4 : int(left) + 192]
            has_picture = (card[:155] < 250).mean() > 0.05
            has_names = [(card[low:high] < 160).any() for low, high in ((168, 184), (185, 202))]
            assert [has_picture, *has_names] == [place_on_page < on_page] * 3


def test_the_pdf_is_there_and_small():
    data = (ROOT / "docs" / "cards.pdf").read_bytes()
    assert data.startswith(b"%PDF-")
    assert data.count(b"/Type /Page\n") + data.count(b"/Type /Page ") == 9
    assert len(data) < 3_000_000
