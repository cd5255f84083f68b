"""What scripts/env promises, apart from the long builds that running any test at all needs."""

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

if "EFV2_ROS_FROM" not in os.environ:
    pytest.skip("these tests run inside scripts/env", allow_module_level=True)

SCRIPTS = Path(__file__).parents[1] / "scripts"
ENV = SCRIPTS / "env"
DISTRO = os.environ["ROS_DISTRO"]


@pytest.fixture
def environment():
    spec = importlib.util.spec_from_file_location("environment", SCRIPTS / "environment.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["environment"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["environment"]


def run(*command, **variables):
    """Run a command that finds the environments where the running one is."""
    cache = {"EFV2_CACHE_DIR": str(Path(os.environ["VIRTUAL_ENV"]).parent)}
    return subprocess.run(
        command,
        env={**os.environ, **cache, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_version_is_pinned(environment):
    sections = environment.read_sections(environment.LOCK_FILE)
    condition = r'python_version (<|>=) "3\.\d\d"|platform_machine == "x86_64"'
    pin = re.compile(rf"[a-z\d.-]+==\d[\w.]*( ; ({condition})( and ({condition}))?)?")
    flavours = {"numpy1", "numpy2", "train", "audit", *environment.DISTROS}
    assert {"build", "host", "common", *flavours} == set(sections)
    for pins in sections.values():
        assert pins == sorted(pins, key=lambda line: line.partition("==")[0])
        assert [line for line in pins if not pin.fullmatch(line)] == []


def test_every_pin_has_hashes_and_no_other_has(environment):
    files = environment.read_sections(environment.HASHES_FILE)
    locked = environment.read_sections(environment.LOCK_FILE)
    assert set(files) == {environment.release_of(pin) for pins in locked.values() for pin in pins}
    for release, lines in files.items():
        name, _, version = release.partition("==")
        start = re.compile(
            rf"[0-9a-f]{{64}}  {re.sub('[-.]', '[-_.]', name)}-{re.escape(version)}", re.I
        )
        assert lines
        assert [line for line in lines if not start.match(line)] == []


def test_pin_without_hashes_is_named(environment):
    with pytest.raises(
        environment.EnvironmentFailure, match=r"hashes of numpy==0\.0\.0: run scripts"
    ):
        environment.with_hashes(["numpy==0.0.0 ; python_version < '3.13'"])


def wheel(folder):
    """Make a wheel of one module, and give its SHA-256."""
    path = folder / "efv2_hashed-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        info = "efv2_hashed-1.0.dist-info"
        archive.writestr("efv2_hashed.py", "")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: efv2-hashed\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_only_a_file_with_the_hash_is_installed(environment, monkeypatch, tmp_path):
    sha256 = wheel(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    hashes = tmp_path / "requirements.hashes"
    monkeypatch.setattr(environment, "HASHES_FILE", hashes)
    builder = environment.Builder(tmp_path / "prefix", environment.Flavour("kilted"))
    builder.prefix.mkdir()
    builder.make_venv()

    hashes.write_text(f"[efv2-hashed==1.0]\n{'0' * 64}  efv2_hashed-1.0-py3-none-any.whl\n")
    with pytest.raises(environment.EnvironmentFailure, match="is not the one in") as failure:
        builder.install(["efv2-hashed==1.0"])
    assert sha256 in str(failure.value)
    assert not list(builder.prefix.rglob("efv2_hashed.py"))

    builder.log.unlink()
    hashes.write_text(f"[efv2-hashed==1.0]\n{sha256}  efv2_hashed-1.0-py3-none-any.whl\n")
    builder.install(["efv2-hashed==1.0"])
    assert list(builder.prefix.rglob("efv2_hashed.py"))


def test_a_changed_hash_is_another_environment(environment, monkeypatch, tmp_path):
    flavour = environment.Flavour("kilted")
    before = environment.fingerprint(flavour)
    changed = tmp_path / "requirements.hashes"
    text = environment.HASHES_FILE.read_text()
    monkeypatch.setattr(environment, "HASHES_FILE", changed)
    for pin, same in (("numpy==1.26.4", False), ("torch==2.14.1", True)):
        changed.write_text(text.replace(f"[{pin}]\n", f"[{pin}]\n{'0' * 64}  other.whl\n"))
        assert (environment.fingerprint(flavour) == before) == same


def test_arguments_and_exit_code_pass_through():
    program = "import sys; print(sys.argv[1:]); sys.exit(7)"
    result = run(ENV, "--distro", DISTRO, "--", "python", "-c", program, "--distro", "two words")
    assert result.stdout == "['--distro', 'two words']\n"
    assert result.returncode == 7


def test_unknown_command():
    result = run(ENV, "--distro", DISTRO, "no-such-command")
    assert result.returncode == 127
    assert "no-such-command: No such file or directory" in result.stderr


def test_distribution_that_is_nowhere():
    result = run(ENV, "--distro", "foxy", "true")
    assert result.returncode == 1
    assert "ROS 2 foxy is not on PyPI (kilted and jazzy are) and not sourced" in result.stderr


def test_runs_inside_itself():
    show = ("printenv", "VIRTUAL_ENV", "AMENT_PREFIX_PATH", "LD_LIBRARY_PATH", "PYTHONPATH")
    once = run(ENV, "--distro", DISTRO, "--", *show)
    twice = run(ENV, "--distro", DISTRO, "--", ENV, "--distro", DISTRO, "--", *show)
    assert once.returncode == 0
    assert twice.stdout == once.stdout


def test_unusable_interpreter_is_not_replaced_by_another():
    result = run(ENV, "true", EFV2_PYTHON="/bin/false")
    assert result.returncode == 1
    assert "EFV2_PYTHON=/bin/false" in result.stderr
    assert "sudo apt install" in result.stderr


def test_all_missing_tools_are_named_before_anything_is_installed(tmp_path):
    cache = tmp_path / "cache"
    result = run(
        sys.executable,
        SCRIPTS / "environment.py",
        "--numpy2",
        "true",
        PATH=str(tmp_path),
        EFV2_CACHE_DIR=str(cache),
    )
    assert result.returncode == 1
    for missing in ("a C compiler", "a C++ compiler", "CMake", "a build tool"):
        assert missing in result.stderr
    assert "sudo apt install build-essential cmake" in result.stderr
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


def test_sourced_ros_is_used_unless_another_is_asked_for(environment, monkeypatch, tmp_path):
    prefix = tmp_path / "opt" / "ros" / "humble"
    (prefix / "share" / "rclpy").mkdir(parents=True)
    monkeypatch.setenv("ROS_DISTRO", "humble")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'workspace'}:{prefix}")
    sourced = environment.Flavour("humble", sourced=str(prefix))

    assert environment.choose_flavour(None, False) == sourced
    assert environment.choose_flavour("humble", False) == sourced
    assert environment.choose_flavour("jazzy", False) == environment.Flavour("jazzy")
    assert environment.choose_flavour(None, True) == environment.Flavour("kilted", numpy2=True)
    assert not [pin for pin in sourced.pins()["rest"] if pin.startswith("ros-")]

    (tmp_path / "workspace" / "share" / "vision_msgs").mkdir(parents=True)
    assert environment.choose_flavour(None, False).has == ("vision_msgs",)


def test_generated_interfaces_are_invisible_to_colcon(environment):
    result = run("colcon", "list", "--base-paths", SCRIPTS)
    assert result.stdout == ""
    names = [package.name for package in environment.interface_packages()]
    assert names == ["ai_msgs", "foxglove_msgs", "hbm_img_msgs", "vision_msgs"]
