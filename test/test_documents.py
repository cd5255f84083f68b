"""Documents and contributors' files agree with the project: links, languages, pins."""

import re
from pathlib import Path

import pytest
import yaml

from efv2_ros.rewrites import REWRITES

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "models").rglob("*.md")]
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(document):
    """The anchors that GitHub makes of a document's headings."""
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    for link in LINK.findall(document.read_text(encoding="utf-8")):
        if re.match(r"\w+://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{link}: there is no {target}"
        if anchor:
            assert anchor in anchors(target), f"{link}: {target.name} has {anchors(target)}"


PAIRS = sorted(
    [
        ROOT / "README.md",
        *(each for each in (ROOT / "docs").glob("*.md") if "_cn" not in each.stem),
    ]
)


@pytest.mark.parametrize("english", PAIRS, ids=lambda path: path.stem)
def test_documents_are_there_in_both_languages(english):
    chinese = english.with_name(f"{english.stem}_cn.md")
    english, chinese = (each.read_text(encoding="utf-8") for each in (english, chinese))
    assert re.findall(r"^#+ ", english, re.MULTILINE) == re.findall(r"^#+ ", chinese, re.MULTILINE)

    def code(text):
        """Code blocks without their comments, which are translated."""
        blocks = re.findall(r"```(?:bash|python)\n(.*?)```", text, re.DOTALL)
        return [re.sub(r"\s*#.*|<[^>]+>|FILE|FOLDER|文件|目录", "", each) for each in blocks]

    assert code(english) == code(chinese)


def test_the_changelog_has_an_entry_for_this_version():
    from efv2_ros import __version__

    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_workflow_runs_ci_on_both_systems():
    (job,) = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"].values()
    assert job["strategy"]["matrix"]["os"] == ["ubuntu-22.04", "ubuntu-24.04"]
    assert ".ci/run" in [step.get("run") for step in job["steps"]]


@pytest.mark.parametrize("document", ["quantization.md", "quantization_cn.md"])
def test_quantisation_names_every_rewrite_and_recipe(document):
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    recipes = [path.stem for path in (ROOT / "models" / "recipes").glob("*.yaml")]
    assert not [name for name in (*REWRITES, *recipes) if f"`{name}`" not in text]
