"""Errors of fleets of bags."""

from efv2_ros.errors import Efv2Error


class FleetError(Efv2Error):
    """A fleet that cannot be replayed: its folder of results is of no use."""
