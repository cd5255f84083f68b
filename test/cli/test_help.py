"""Every command, argument and option of `efv2`, held against a stored reference.

Help texts may be reworded; names, metavars, defaults, choices and ranges are public. To change the
reference on purpose, run `python test/cli/test_help.py` and look at what git shows.
"""

import json
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from efv2_ros.cli.main import main

REFERENCE = Path(__file__).with_name("help_reference.json")


def plain(value):
    """A default as JSON's types; None for an option without one, however click marks it."""
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value if isinstance(value, (str, int, float, bool)) else None


def described(parameter, help_texts):
    """All of a parameter that scripts and fingers rely on."""
    kind = parameter.type
    found = {
        "kind": parameter.param_type_name,
        "names": [*parameter.opts, *parameter.secondary_opts],
        "required": parameter.required,
        "nargs": parameter.nargs,
        "multiple": bool(getattr(parameter, "multiple", False)),
        "flag": bool(getattr(parameter, "is_flag", False)),
        "default": plain(parameter.default),
        "hidden": bool(getattr(parameter, "hidden", False)),
    }
    if found["default"] is False and not parameter.secondary_opts:
        found["default"] = None  # click 8.0 tells False of a flag, later versions nothing
    if isinstance(kind, click.Choice):
        found["choices"] = list(kind.choices)
    for name in ("min", "max", "min_open", "max_open"):
        if hasattr(kind, name):
            found[name] = getattr(kind, name)
    if found["kind"] == "option":
        # The line of the help text: `--rate R`, as people see it.
        heads = (re.split(r"  |\n", text)[0] for text in help_texts)
        name = parameter.opts[0]
        (found["shown"],) = (head for head in heads if name in re.split("[ /,]", head))
    else:
        found["shown"] = parameter.human_readable_name
    return found


def commands(command, path=()):
    """(path, command), the groups' own commands after them."""
    yield path, command
    for name, each in sorted(getattr(command, "commands", {}).items()):
        yield from commands(each, (*path, name))


def option_texts(help_text):
    """The options of a help text, each with its names and metavar first."""
    _, _, options = help_text.partition("\nOptions:\n")
    options = options.partition("\n\n")[0]
    return [each.strip() for each in re.split(r"\n  (?=-)", f"\n{options}") if each.strip()]


def reference():
    """What `--help` of every command offers now."""
    found = {}
    for path, command in commands(main):
        result = CliRunner().invoke(main, [*path, "--help"], env={"COLUMNS": "200"})
        assert result.exit_code == 0, result.output
        usage = result.output.splitlines()[0].removeprefix("Usage: main").strip()
        texts = option_texts(result.output)
        found[" ".join(("efv2", *path))] = {
            "usage": usage,
            "parameters": [described(each, texts) for each in command.params],
        }
    return found


NOW = reference()
BEFORE = json.loads(REFERENCE.read_text(encoding="utf-8")) if REFERENCE.exists() else {}


def test_there_are_the_same_commands():
    assert sorted(NOW) == sorted(BEFORE)


@pytest.mark.parametrize("command", sorted(BEFORE))
def test_nothing_is_lost_of(command):
    before, now = BEFORE[command], NOW[command]
    assert now["usage"] == before["usage"]
    by_name = {each["names"][0]: each for each in now["parameters"]}
    for expected in before["parameters"]:
        found = by_name.get(expected["names"][0])
        assert found is not None, f"{command} has no {expected['names'][0]} any more"
        assert found == expected
    arguments = [[each["names"][0] for each in side["parameters"] if each["kind"] == "argument"]
                 for side in (before, now)]  # fmt: skip
    assert arguments[0] == arguments[1]


@pytest.mark.parametrize("command", sorted(BEFORE))
def test_every_option_is_explained(command):
    arguments = command.split()[1:]
    result = CliRunner().invoke(main, [*arguments, "--help"], env={"COLUMNS": "200"})
    for text in option_texts(result.output):
        assert re.search(r"(  |\n) *\S+ \S+", text), f"{command}: {text}"


def as_text(found):
    """A line for each parameter, so that a change is one line of a diff."""
    blocks = []
    for command, each in found.items():
        lines = ",\n".join(f"   {json.dumps(parameter)}" for parameter in each["parameters"])
        parameters = f"[\n{lines}\n  ]" if lines else "[]"
        blocks.append(
            f" {json.dumps(command)}: {{\n"
            f'  "usage": {json.dumps(each["usage"])},\n'
            f'  "parameters": {parameters}\n }}'
        )
    return "{\n" + ",\n".join(blocks) + "\n}\n"


if __name__ == "__main__":
    REFERENCE.write_text(as_text(NOW), encoding="utf-8")
