"""Run a command with the board's libraries as stand-ins.

`python -m standins [--KEY=VALUE ...] COMMAND...` in this folder's parent; `{model}` in the command
becomes a model file for them. Keys are those of `libdnn.c`, as in `--duration_us=5000`.
"""

import os
import sys
from pathlib import Path

import standins

settings, command = {}, sys.argv[1:]
while command and command[0].startswith("--"):
    key, _, value = command.pop(0)[2:].partition("=")
    settings[key] = int(value)
model = standins.bin_model(Path(standins.library().parent, "model.bin"))
command = [each.replace("{model}", str(model)) for each in command]
os.execvpe(command[0], command, standins.environment(**settings))
