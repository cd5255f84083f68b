"""Errors of this room."""

from efv2_ros.models.modelfile import ModelError


class QuantizeError(ModelError):
    """A quantisation that is not possible; the message says what to change."""


class RecipeError(QuantizeError):
    """A recipe that cannot be used; the message names the file and the field."""
