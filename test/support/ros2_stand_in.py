"""A stand-in for `ros2 bag play`, which is not installed here: this package's own player."""

import os
import shutil
import sys

_PROGRAM = """#!{python}
import argparse, json, os, sys
if sys.argv[1:2] != ["bag"]:
    os.execv({ros2!r}, [{ros2!r}, *sys.argv[1:]])
if {status}:
    sys.exit({status})
parser = argparse.ArgumentParser()
parser.add_argument("bag")
parser.add_argument("--disable-keyboard-controls", action="store_true", required=True)
parser.add_argument("--rate", required=True)
parser.add_argument("--delay", type=float, required=True)
parser.add_argument("--wait-for-all-acked", type=int, required=True)
parser.add_argument("--qos-profile-overrides-path", type=argparse.FileType(), required=True)
parser.add_argument("--clock")
parser.add_argument("--topics", nargs="+", required=True)
parser.add_argument("--remap", nargs="+", default=[])
assert sys.argv[2] == "play"
arguments = parser.parse_args(sys.argv[3:])
qos = json.load(arguments.qos_profile_overrides_path)
lossless = all(
    (each["reliability"], each["history"]) == ("reliable", "keep_all") for each in qos.values()
)
from efv2_ros.cli.main import main
from efv2_ros.play.session import Session
matched = Session.wait_for_subscribers
def wait_for_subscribers(session):
    matched(session)
    session._spinner.spin_for(arguments.delay)  # with /clock running, as ros2's does
Session.wait_for_subscribers = wait_for_subscribers
main([
    "play", arguments.bag, "--rate", arguments.rate,
    *(["--clock", "--clock-rate", arguments.clock] if arguments.clock else []),
    *(["--reliable"] if lossless else []), "--topics", ",".join(arguments.topics),
    *(each for remapped in arguments.remap for each in ("--remap", remapped)),
])
"""


def ros2_on_path(folder, *, status=0, path=os.environ["PATH"]):
    """A PATH with a `ros2` in `folder`, whose `bag play` plays or ends with `status`.

    Whatever is not about bags is for the `ros2` of `path`, if it has one.
    """
    program = folder / "ros2"
    folder.mkdir(exist_ok=True)
    program.write_text(
        _PROGRAM.format(python=sys.executable, ros2=shutil.which("ros2", path=path), status=status)
    )
    program.chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{path}"}
