"""Faults of the machine around the classifier: disks, clocks, cameras and the way between."""

from __future__ import annotations

from cameras import changing_camera, killed_publishers
from clocks import jumping_machine_clock, jumping_simulated_clock
from disks import full_disk, read_only_cache
from rows import Check
from transport import full_shared_memory, stopped_node, without_daemon

CHECKS: tuple[Check, ...] = (
    full_disk, read_only_cache, jumping_simulated_clock, jumping_machine_clock, changing_camera,
    killed_publishers, stopped_node, full_shared_memory, without_daemon,
)  # fmt: skip
