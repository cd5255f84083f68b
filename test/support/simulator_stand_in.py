"""Stands in for the toolchain in the simulator's worker: four classes, and faults on demand.

The real worker talks to its caller; only the network is another. The `.bin`'s text asks for faults
while it loads, and an image's first pixel for those while it runs.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "efv2_ros" / "toolchain" / "worker"))

import simulate

FINE, DIES, HANGS, FAILS, CHATTERS, SLOW = range(6)
"""First pixels."""


class Network:
    """The logits are the means of Y, U and V, and the number of this process."""

    classes, version = 4, "stand-in 1.0"

    def __init__(self, job):
        match Path(job["bin"]).read_text():
            case "refused":
                raise simulate.Refused(f"{job['bin']} is refused")
            case "broken":
                raise ValueError("seven of nine\nand more")
            case "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exits":
                sys.exit("no memory is left")
            case "slow":
                time.sleep(60)
            case "dies the second time":
                mark = Path(f"{job['bin']}.started")
                if mark.exists():
                    sys.exit("it was here before")
                mark.touch()
        Path(job["folder"], "machine code").write_text("for the vendor's simulator")

    def run(self, nv12):
        match nv12[0, 0]:
            case 1:  # DIES
                sys.stderr.write("an instruction is unknown\n")
                sys.stderr.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            case 2:  # HANGS
                subprocess.run(["sleep", "60"], check=False)
            case 3:  # FAILS
                raise RuntimeError("an address is odd\nat 0x17")
            case 4:  # CHATTERS
                os.write(1, b"the vendor's libraries print this\n")
            case 5:  # SLOW
                time.sleep(0.3)
        rows = len(nv12) * 2 // 3
        chroma = nv12[rows:]
        means = (nv12[1:rows].mean(), chroma[:, ::2].mean(), chroma[:, 1::2].mean())
        return np.array([*means, os.getpid()], np.float32)


if __name__ == "__main__":
    simulate.open_network = Network
    simulate.main()
