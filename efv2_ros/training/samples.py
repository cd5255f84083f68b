"""Photos as the network's NV12 input: augmented for training, as the node sees them to validate.

Every random choice follows from the seed, the epoch and the photo's number: a run that goes on
after an interruption sees the same as one that was not interrupted, with any number of workers.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch.utils.data import Dataset, Sampler

from efv2_ros.models.catalog import IMAGENET_MEAN
from efv2_ros.pictures.photo import read_photo
from efv2_ros.training.errors import TrainingError
from efv2_ros.training.options import TrainingOptions
from efv2_ros.training.photos import LabelledPhoto
from efv2_ros.vision.frame import Frame, FrameError
from efv2_ros.vision.nv12 import Fit, Nv12Converter

CROP_PCT = 0.95
"""Share of the shorter side that validation keeps, as the catalog says of the result."""


class Place(NamedTuple):
    """Which photo of which epoch, both counted from 0."""

    epoch: int
    photo: int


class Sample(NamedTuple):
    """A photo as the network gets it.

    Attributes:
        nv12: uint8 of shape (side * 3 // 2, side).
        class_id: Index of its class.
        unreadable: Number of the photo that could not be read and for which another stands; -1
            where there is none.
    """

    nv12: torch.Tensor
    class_id: int
    unreadable: int


class TrainingSamples(Dataset[Sample]):
    """Photos, cropped, mirrored and changed at random. Indices are `Place`s.

    For a photo that cannot be read, another one of its class stands.

    Args:
        photos: The photos.
        options: Of the run.

    Raises:
        TrainingError: `augment` is not in timm's words.
    """

    def __init__(self, photos: Sequence[LabelledPhoto], options: TrainingOptions) -> None:
        cv2.setNumThreads(0)  # the workers share the processor
        self._photos = photos
        self._options = options
        grey = tuple(round(each) for each in IMAGENET_MEAN)
        try:
            self._augment = (
                rand_augment_transform(options.augment, {"img_mean": grey, "translate_const": 40})
                if options.augment
                else None
            )
        except (AssertionError, ValueError, KeyError) as error:
            raise TrainingError(
                f"{options.augment} does not describe RandAugment in timm's words, as "
                f"{TrainingOptions.augment} does"
            ) from error

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, place: Place) -> Sample:
        """Make a sample.

        Raises:
            FrameError: No photo of the class can be read.
        """
        side = self._options.side(place.epoch)
        _seed(self._options.seed, place.epoch, place.photo)
        bgr, unreadable = self._read(place)
        image = Image.fromarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
        crop = RandomResizedCropAndInterpolation(
            side, scale=(self._options.crop_scale, 1.0), interpolation="bilinear"
        )
        image = crop(image)
        if self._options.flip and random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self._augment is not None:
            image = self._augment(image)
        pixels = np.asarray(image, np.uint8)[..., ::-1]
        nv12 = _converter(side, "stretch").convert(Frame.from_bgr(pixels))
        return Sample(torch.from_numpy(nv12), self._photos[place.photo].class_id, unreadable)

    def _read(self, place: Place) -> tuple[NDArray[np.uint8], int]:
        """A photo's pixels, or those of another of its class and the number of this one."""
        try:
            return _pixels(self._photos[place.photo]), -1
        except FrameError as error:
            first = error
        class_id = self._photos[place.photo].class_id
        others = [number for number, each in enumerate(self._photos) if each.class_id == class_id]
        random.shuffle(others)
        for number in others:
            try:
                return _pixels(self._photos[number]), place.photo
            except FrameError:
                continue
        raise first


class ValidationSamples(Dataset[Sample]):
    """Photos through the node's way into the network: `fit: crop`, full-range NV12.

    A photo that cannot be read is all black, and marked.

    Args:
        photos: The photos.
        side: Side of the network's input in pixels.
    """

    def __init__(self, photos: Sequence[LabelledPhoto], side: int) -> None:
        cv2.setNumThreads(0)
        self._photos = photos
        self._side = side

    def __len__(self) -> int:
        return len(self._photos)

    def __getitem__(self, number: int) -> Sample:
        """Make a sample."""
        photo, side = self._photos[number], self._side
        try:
            nv12, unreadable = _converter(side, "crop").convert(read_photo(photo.path)), -1
        except FrameError:
            nv12, unreadable = np.zeros((side * 3 // 2, side), np.uint8), number
        return Sample(torch.from_numpy(nv12), photo.class_id, unreadable)


class EpochSampler(Sampler[Place]):
    """The photos of an epoch in random order, each once, or as many of each class.

    Args:
        photos: The photos.
        seed: Seed of the order.
        balance: Whether each class is shown equally often: rare ones are repeated, and as many of
            the frequent ones are left out of the epoch, others in each.
    """

    def __init__(self, photos: Sequence[LabelledPhoto], seed: int, balance: bool) -> None:
        self._photos = photos
        self._seed = seed
        self._balance = balance
        self.epoch = 0

    def __len__(self) -> int:
        return len(self._photos)

    def __iter__(self) -> Iterator[Place]:
        generator = np.random.default_rng([self._seed, self.epoch])
        order = generator.permutation(len(self._photos))
        if self._balance:
            counts = Counter(each.class_id for each in self._photos)
            shares = np.array([1 / counts[each.class_id] for each in self._photos])
            shares /= shares.sum()
            order = generator.choice(len(self._photos), len(self._photos), p=shares)
        return (Place(self.epoch, int(number)) for number in order)


@cache
def _converter(side: int, fit: Fit) -> Nv12Converter:
    """A worker's converter, which keeps its memory from photo to photo."""
    return Nv12Converter(side, side, fit=fit, crop_pct=CROP_PCT)


def _pixels(photo: LabelledPhoto) -> NDArray[np.uint8]:
    frame = read_photo(photo.path)
    return frame.data.reshape(frame.height, frame.width, 3)


def _seed(*numbers: int) -> None:
    """Seed the generators that timm's transforms draw from."""
    (state,) = np.random.SeedSequence(numbers).generate_state(1)
    random.seed(int(state))
    np.random.seed(state)  # noqa: NPY002 - timm draws from it
