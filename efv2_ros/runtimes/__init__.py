"""Backends that turn an NV12 buffer into logits."""
