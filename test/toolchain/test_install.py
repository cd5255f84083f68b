"""Installation from a package index of the test's own: small packages instead of the vendor's."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
import zipfile

import pytest
from click.testing import CliRunner

from efv2_ros.cli.main import main
from efv2_ros.toolchain import doctor, install, pins, pythons
from efv2_ros.toolchain.environment import (
    Stopped,
    ToolchainError,
    ToolchainUnavailableError,
    toolchain_path,
    toolchain_python,
)
from efv2_ros.toolchain.pins import Pins

COMPILER = "#!python\nprint('version: 3.0 of the test')\n"


@pytest.fixture(scope="module")
def base():
    try:
        return pythons.find_python().path
    except ToolchainUnavailableError as error:
        pytest.skip(str(error))


def wheel(folder, name, version="1.0", files=(), scripts=()):
    """Write a wheel; return its line of requirements."""
    info, data = f"{name}-{version}.dist-info", f"{name}-{version}.data"
    content = {
        f"{name}.py": "",
        **{f"{data}/scripts/{each}": text for each, text in dict(scripts).items()},
        **dict(files),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = []
    for path, text in content.items():
        digest = hashlib.sha256(text.encode()).digest()
        value = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        record.append(f"{path},sha256={value},{len(text)}\n")
    file = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for path, text in content.items():
            entry = zipfile.ZipInfo(path)
            entry.external_attr = 0o100755 << 16
            archive.writestr(entry, text)
        archive.writestr(f"{info}/RECORD", "".join(record))
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}\n"


@pytest.fixture
def index(base, tmp_path, monkeypatch):
    """Folder of the requirements, which the test may change; beside it lie the wheels."""
    wheels, requirements = tmp_path / "wheels", tmp_path / "requirements"
    wheels.mkdir()
    requirements.mkdir()
    slim = wheel(wheels, "compiler", scripts={"hbdk-cc": COMPILER}) + wheel(wheels, "helper")
    (requirements / "slim.txt").write_text(f"# A comment.\n{slim}")
    (requirements / "full.txt").write_text(slim + wheel(wheels, "more"))
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.delenv("EFV2_TOOLCHAIN_PYTHON", raising=False)
    monkeypatch.setattr(pins, "REQUIREMENTS", requirements)
    return requirements


def packages():
    done = subprocess.run(
        [toolchain_python(), "-m", "pip", "list", "--format=json"], capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return {each["name"]: each["version"] for each in json.loads(done.stdout)}


def environments():
    return sorted(each.name for each in toolchain_path().parent.glob("toolchain-*"))


def test_new_pins_and_the_full_environment(index):
    steps = []
    assert install.install(on_step=steps.append)
    assert {"compiler", "helper"} <= set(packages())
    names = [each.name for each in steps]
    assert names[0] == "making an environment"
    assert "installing" in names and names[-1] == "running the compiler"
    assert install.installed().flavour == "slim"

    started = time.monotonic()
    assert not install.install()
    assert time.monotonic() - started < 1

    old = environments()
    line = wheel(index.parent / "wheels", "helper", "2.0")
    pinned = index / "slim.txt"
    pinned.write_text(pinned.read_text().rsplit("\n", 2)[0] + "\n" + line)
    assert install.installed() is None
    assert install.install()
    assert packages()["helper"] == "2.0"
    assert environments() == [Pins.load("slim").folder_name] != old

    assert install.install("full")
    assert "more" in packages()
    assert not install.install("slim"), "the full environment serves as the slim one"
    assert install.installed().flavour == "full"


def run(*arguments):
    result = CliRunner().invoke(main, ["toolchain", *arguments])
    assert "Traceback" not in result.output
    return result


def findings():
    result = run("doctor", "--json")
    found = json.loads(result.output)
    assert result.exit_code == any(each["verdict"] == "missing" for each in found)
    return found


def test_the_life_of_an_environment(index):
    result = run("doctor")
    assert result.exit_code == 1 and "efv2 toolchain install" in result.output
    result = run("install")
    assert result.exit_code == 0, result.output
    assert f"installed: {toolchain_path()}" in result.output
    assert run("install").output == f"already here: {toolchain_path()}\n"

    details = {each["subject"]: each["detail"] for each in findings()}
    assert details["helper"].startswith("1.0, ")
    assert details["environment"].startswith("slim, ")
    assert details["compiler"] == "version: 3.0 of the test"
    assert "torch" in details["stand-ins"]

    # Pins that cannot be had leave the environment in use.
    before = toolchain_path().resolve()
    good = (index / "slim.txt").read_text()
    (index / "slim.txt").write_text(re.sub("sha256:....", "sha256:0000", good))
    result = run("install")
    assert result.exit_code == 1
    assert "the toolchain was not installed: " in result.output
    assert "hash" in result.output.lower()
    assert toolchain_path().resolve() == before and packages()
    (index / "slim.txt").write_text(good)
    assert not install.install()

    (module,) = toolchain_path().glob("lib/python*/site-packages/helper.py")
    module.write_text("changed")
    (compiler,) = toolchain_path().glob("lib/python*/site-packages/compiler.py")
    compiler.unlink()
    found = [each for each in findings() if each["verdict"] == "missing"]
    assert [(each["subject"], each["detail"]) for each in found] == [
        ("compiler", "1.0, but compiler.py is missing or has changed"),
        ("helper", "1.0, but helper.py is missing or has changed"),
    ]
    assert all("efv2 toolchain install" in each["fix"] for each in found)

    (toolchain_path() / "bin" / "python").unlink()
    assert install.installed() is None
    assert install.install()
    assert all(each["verdict"] != "missing" for each in findings())


PIP = """\
Collecting numpy==1.23.0 (from -r slim.txt (line 11))
  Downloading numpy-1.23.0-cp310-cp310-manylinux_2_17_x86_64.whl.metadata (2.2 kB)
Downloading numpy-1.23.0-cp310-cp310-manylinux_2_17_x86_64.whl (17.0 MB)
Progress 0 of 17000000
Progress 1000000 of 17000000
Using cached jinja2-3.1.6-py3-none-any.whl (134 kB)
Installing collected packages: numpy, jinja2
"""


def test_what_pip_prints_becomes_steps(tmp_path):
    (tmp_path / "lib/python3.10/site-packages/numpy.dist-info").mkdir(parents=True)
    steps = []
    told = install._PipProgress(tmp_path, 2, steps.append)
    for line in [*PIP.splitlines(), ""]:
        told(line.strip())
    assert list(dict.fromkeys(steps)) == [
        install.Step("asking for numpy"),
        install.Step("downloading numpy", 0, 17_000_000, "bytes"),
        install.Step("downloading numpy", 1_000_000, 17_000_000, "bytes"),
        install.Step("taking from pip's cache jinja2", 0, 134_000, "bytes"),
        install.Step("installing", 1, 2),
    ]


def test_a_compiler_that_does_not_run_is_no_installation(index):
    line = wheel(
        index.parent / "wheels", "compiler", "2.0", scripts={"hbdk-cc": "#!python\n1/0\n"}
    )
    (index / "slim.txt").write_text(line)
    with pytest.raises(ToolchainError, match="ZeroDivisionError"):
        install.install()
    with pytest.raises(ToolchainUnavailableError):
        toolchain_python()


def test_stopping_ends_within_a_second_and_the_next_one_starts_anew(index):
    asked = []

    def stop_while_installing():
        asked.append(time.monotonic())
        return len(asked) > 3

    with pytest.raises(Stopped):
        install.install(should_stop=stop_while_installing)
    assert time.monotonic() - asked[-1] < 1
    with pytest.raises(ToolchainUnavailableError):
        toolchain_python()
    assert len(environments()) == 1  # what was begun
    assert install.install()
    assert packages()


def test_two_installations_take_turns(index):
    installed, waited = [], []

    def run():
        installed.append(install.install(on_step=lambda step: waited.append(step.name)))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(installed) == [False, True]
    assert "waiting for another installation" in waited


def test_a_full_disk_is_told_before_anything_is_made(index, monkeypatch):
    monkeypatch.setitem(install.DISK_BYTES, "slim", 1 << 60)
    with pytest.raises(ToolchainError, match="GB left, and installing needs"):
        install.install()
    assert not environments()


def test_a_cache_that_cannot_be_written(index, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ToolchainError, match="Not a directory"):
        install.install()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'pyenv: python3.10: command not found' >&2; exit 127", "command not found"),
        ("exit 1", "it does not run"),
        ("echo hello", "does not answer as a Python does"),
        ("""echo '["/", "CPython", "3.9.1", "x86_64", true, true]'""", "it is Python 3.9.1"),
        ("""echo '["/", "PyPy", "3.10.1", "x86_64", true, true]'""", "it is PyPy"),
        ("""echo '["/", "CPython", "3.10.1", "x86_64", true, false]'""", "python3.10-venv"),
    ],
)
def test_a_python_of_no_use_is_told(tmp_path, monkeypatch, script, words):
    monkeypatch.setattr(pythons, "check_platform", lambda: None)
    path = tmp_path / "python3.10"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    with pytest.raises(ToolchainUnavailableError, match=words) as caught:
        pythons.find_python(path)
    assert str(caught.value).startswith(f"--python {path}: ")
    monkeypatch.setattr(pythons, "_candidates", lambda: iter([path]))
    with pytest.raises(ToolchainUnavailableError, match=words) as caught:
        pythons.find_python()
    assert "uv python install 3.10" in str(caught.value)


def test_pythons_of_pyenv_and_uv_are_found(tmp_path, monkeypatch):
    for folder in ("pyenv/versions/3.10.9/bin", "uv/cpython-3.10.9-linux/bin"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "python3.10").symlink_to(sys.executable)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("PATH", "/nowhere")
    found = list(pythons._candidates())
    assert found[0] == tmp_path / "pyenv/versions/3.10.9/bin/python3.10"
    assert tmp_path / "uv/cpython-3.10.9-linux/bin/python3.10" in found


@pytest.mark.parametrize("machine", [("aarch64", "Linux"), ("x86_64", "Darwin")])
def test_another_machine_gets_a_sentence(monkeypatch, machine):
    monkeypatch.setattr(pythons.platform, "machine", lambda: machine[0])
    monkeypatch.setattr(pythons.platform, "system", lambda: machine[1])
    result = CliRunner().invoke(main, ["toolchain", "install"])
    assert result.exit_code == 1
    assert "runs on x86-64 Linux only" in result.output
    (found,) = doctor.examine()
    assert found.verdict == "missing"


@pytest.mark.parametrize("flavour", pins.FLAVOURS)
def test_every_pin_has_a_hash(flavour):
    text = (pins.REQUIREMENTS / f"{flavour}.txt").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines and all(" --hash=sha256:" in line for line in lines)
    found = Pins.load(flavour).packages
    assert {"dgdk", "dg_nn_toolkit", "rdkx5_yolo_mapper", "numpy", "pip"} <= set(found)
    assert ("torch" in found) == (flavour == "full")
