"""Base class of all errors whose messages are written for the user."""


class Efv2Error(Exception):
    """An error that the user can fix; the message tells how."""
