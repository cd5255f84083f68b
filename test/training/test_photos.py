"""Data sets for training: what is found, what is set apart, what is refused."""

import pytest

from efv2_ros.training.errors import TrainingError
from efv2_ros.training.options import TrainingOptions
from efv2_ros.training.photos import find_photos


def make(folder, **counts):
    """Folders of as many files with a photo's name."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            (folder / name / f"{number}.jpg").touch()
    return folder


def names(photos):
    return [each.path.name for each in photos]


def test_a_folder_for_each_class_is_split_by_class(tmp_path):
    found = find_photos(make(tmp_path, dog=20, cat=10), share=0.2)
    assert found.classes == ("cat", "dog")
    assert [each.class_id for each in found.training] == [0] * 8 + [1] * 16
    assert [each.class_id for each in found.validation] == [0] * 2 + [1] * 4
    assert not {each.path for each in found.training} & {each.path for each in found.validation}


def test_the_seed_decides_what_is_set_apart(tmp_path):
    make(tmp_path, dog=30, cat=30)
    first, again, other = (find_photos(tmp_path, seed=seed).validation for seed in (0, 0, 1))
    assert first == again != other


def test_a_class_keeps_its_only_photo(tmp_path):
    found = find_photos(make(tmp_path, dog=20, cat=1))
    assert [each.class_id for each in found.validation] == [1, 1]
    assert any("cat" in each and "unknown" in each for each in found.remarks)


def test_train_and_val_are_taken_as_they_are(tmp_path):
    make(tmp_path / "train", dog=3, cat=2)
    make(tmp_path / "val", dog=1, cat=1)
    found = find_photos(tmp_path)
    assert (len(found.training), len(found.validation)) == (5, 2)


def test_photos_may_lie_deeper_and_hidden_ones_do_not_count(tmp_path):
    make(tmp_path / "dog", small=2, big=2)
    make(tmp_path, cat=3, **{".git": 2})
    (tmp_path / "cat" / ".hidden.jpg").touch()
    (tmp_path / "cat" / "notes.txt").touch()
    found = find_photos(tmp_path)
    assert found.classes == ("cat", "dog")
    assert len(found.training) + len(found.validation) == 7


def test_a_list_names_photos_relative_to_itself(tmp_path):
    make(tmp_path / "photos", a=3)
    listed = tmp_path / "list.csv"
    listed.write_text(
        "# path, class, part\nphotos/a/0.jpg,red,train\n\nphotos/a/1.jpg\tblue\ttrain\n"
        "photos/a/2.jpg, red, val\n"
    )
    found = find_photos(listed)
    assert found.classes == ("blue", "red")
    assert names(found.training) == ["1.jpg", "0.jpg"]
    assert names(found.validation) == ["2.jpg"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("photos/a/0.jpg", "list.csv:1 is not PATH,CLASS"),
        ("photos/a/0.jpg,,train", "list.csv:1 is not PATH,CLASS"),
        ("photos/a/0.jpg,red,test", "says test, which is neither train nor val"),
        ("photos/a/9.jpg,red", "names .*9.jpg, which is no photo"),
        ("photos/a/0.jpg,red,val", "lists no photo to train with"),
    ],
)
def test_a_list_with_a_wrong_line_is_refused(tmp_path, line, says):
    make(tmp_path / "photos", a=1)
    (tmp_path / "list.csv").write_text(line)
    with pytest.raises(TrainingError, match=says):
        find_photos(tmp_path / "list.csv")


def test_a_list_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "list").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(TrainingError, match="no UTF-8 text"):
        find_photos(tmp_path / "list")


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ({}, "has no folders with photos"),
        ({"dog": 0}, "has no folders with photos"),
        ({"dog": 3}, "has one class only, dog"),
        ({"dog": 3, "cat": 0}, "there are no photos of cat"),
    ],
)
def test_too_little_is_refused(tmp_path, counts, says):
    with pytest.raises(TrainingError, match=says):
        find_photos(make(tmp_path, **counts))


def test_a_class_that_is_only_validated_is_refused(tmp_path):
    make(tmp_path / "train", dog=3, cat=2)
    make(tmp_path / "val", dog=1, bird=1)
    with pytest.raises(TrainingError, match="photos of bird to validate with, and none to train"):
        find_photos(tmp_path)


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="there is no folder or file"):
        find_photos(tmp_path / "nothing")


def test_remarks_name_what_is_few_and_what_is_uneven(tmp_path):
    few, uneven = find_photos(make(tmp_path, dog=300, cat=10), share=0.1).remarks
    assert few.startswith("fewer than 20 photos of cat ")
    assert uneven.startswith("270 photos of dog, but 9 of cat")
    assert "--balance" in uneven


def test_a_good_data_set_needs_no_remark(tmp_path):
    assert find_photos(make(tmp_path, dog=40, cat=60)).remarks == ()


def test_workers_do_not_decide_the_result_and_weights_are_known_by_their_place(
    tmp_path, monkeypatch
):
    assert TrainingOptions(workers=1).identity() == TrainingOptions(workers=5).identity()
    assert TrainingOptions(seed=1).identity() != TrainingOptions().identity()
    (tmp_path / "w.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    assert TrainingOptions(weights="w.safetensors").identity()["weights"] == str(
        tmp_path / "w.safetensors"
    )
