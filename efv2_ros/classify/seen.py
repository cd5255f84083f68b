"""The part of a frame that a classifier's network sees."""

from __future__ import annotations

from efv2_ros.classify.classifier import Classifier
from efv2_ros.vision.frame import Frame
from efv2_ros.vision.seen import Seen
from efv2_ros.vision.upright import picture_size


def seen(frame: Frame, classifier: Classifier) -> Seen:
    """Compute which part of a frame's picture a classifier's network sees.

    Raises:
        FrameError: The frame cannot be read, or `roi` does not lie inside its picture.
    """
    model, options = classifier.model, classifier.options
    return Seen.of(
        picture_size(frame, options.max_pixels),
        options.fit,
        (model.image.width, model.image.height),
        model.file.spec.crop_pct,
        options.roi,
    )
