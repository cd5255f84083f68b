"""Errors of reading and writing bags."""

from efv2_ros.errors import Efv2Error


class BagError(Efv2Error):
    """A bag that cannot be read or written, or that lacks what was asked for."""
