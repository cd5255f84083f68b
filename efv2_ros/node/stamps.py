"""Detection of late images by their stamps."""

from __future__ import annotations

from efv2_ros.vision.frame import FrameError, Header

# An image is late if its stamp goes back by less than this. If stamps go back by more, or on
# several images in a row, time started again.
_LATE_NANOSECONDS = 1_000_000_000
_LATE_IMAGES = 3


class StampOrder:
    """Tells a late image from a stream that started again, such as a bag that is played twice."""

    def __init__(self) -> None:
        self._newest: int | None = None
        self._late_in_a_row = 0

    def check(self, header: Header) -> None:
        """Check the next image.

        Raises:
            FrameError: `stamp`: the image is late, older than one that came before it.
        """
        newest, stamp = self._newest, header.nanoseconds
        if newest is not None and 0 < newest - stamp < _LATE_NANOSECONDS:
            self._late_in_a_row += 1
            if self._late_in_a_row < _LATE_IMAGES:
                raise FrameError("stamp", "the image is older than one that came before it")
        self._late_in_a_row = 0
        self._newest = stamp
