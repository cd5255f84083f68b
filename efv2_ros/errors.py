"""The base of every error whose message is written for the person at the keyboard."""


class Efv2Error(Exception):
    """Something the user can do something about; the message says what."""
