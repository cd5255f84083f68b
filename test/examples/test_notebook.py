"""The example notebook runs from its first cell to its last, in a real Jupyter kernel."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("matplotlib")

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        notebook = nbformat.read(EXAMPLES / "classify.ipynb", as_version=4)
        client = nbclient.NotebookClient(
            notebook, timeout=300, resources={"metadata": {"path": str(EXAMPLES)}}
        )
        client.execute()
    return notebook


def outputs(notebook, kind):
    return [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == kind
    ]


def test_it_shows_photos_and_what_the_model_sees(executed):
    pictures = [each for each in outputs(executed, "display_data") if "image/png" in each.data]
    assert len(pictures) == 2


def test_it_prints_the_model_and_every_stage(executed):
    text = "".join(each.text for each in outputs(executed, "stream") if each.name == "stdout")
    assert "efficientformerv2_s0_cards" in text and "100 classes" in text
    for stage in ("convert", "infer", "postprocess"):
        assert f"{stage:12} p50" in text


def test_it_is_stored_without_outputs():
    notebook = nbformat.read(EXAMPLES / "classify.ipynb", as_version=4)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
