"""The NV12 conversion in float64, written for clarity: what the fast one is measured against.

Nothing here comes from the package. Positions count pixel centres, as the formulas in the
literature do.
"""

from __future__ import annotations

import math

import numpy as np


def bilinear(plane, xs, ys):
    """Samples (h, w[, c]) at every (y, x) of the two position lists; edges are repeated."""
    plane = np.asarray(plane, np.float64)
    for axis, positions in ((0, ys), (1, xs)):
        length = plane.shape[axis]
        low = np.floor(positions).astype(int)
        weight = (positions - low).reshape(
            [-1 if each == axis else 1 for each in range(plane.ndim)]
        )
        left = np.take(plane, np.clip(low, 0, length - 1), axis)
        right = np.take(plane, np.clip(low + 1, 0, length - 1), axis)
        plane = left * (1 - weight) + right * weight
    return plane


def shrinks(positions):
    """Whether samples at these positions lie more than a pixel apart."""
    return len(positions) > 1 and positions[1] - positions[0] > 1 + 1e-9


def used_rows(ys):
    """Rows that are looked at to shrink a plane antialiased: the first, and their distance.

    At most two rows per output row are needed. Of k rows the middle one stands for all; its k rows
    must begin where a sample begins, to 1/30 of their height, so that no sample is shifted.
    """
    fine_step = (ys[1] - ys[0]) / 2 if shrinks(ys) else 1
    start = ys[0] + 0.5 - fine_step
    for stride in range(int(fine_step), 1, -1):
        earlier = 0
        while start - earlier * fine_step > -0.5:
            middle = start - earlier * fine_step + (stride - 1) / 2
            row = max(0, math.ceil(middle - 0.5))
            if abs(row - middle) <= stride / 30:
                return row, stride
            earlier += 1
    return 0, 1


def antialiased(plane, xs, ys):
    """Bilinear samples on a grid twice as fine along axes that shrink, then the mean of pairs."""

    def refined(positions):
        quarter = (positions[1] - positions[0]) / 4
        return np.stack([positions - quarter, positions + quarter], 1).ravel()

    both = [(refined(each), 2) if shrinks(each) else (each, 1) for each in (xs, ys)]
    (fine_xs, across), (fine_ys, down) = both
    first, stride = used_rows(ys)
    fine = bilinear(plane[first::stride], fine_xs, (fine_ys - first) / stride)
    blocks = fine.reshape(len(ys), down, len(xs), across, *fine.shape[2:])
    return blocks.mean(axis=(1, 3))


def cubic(distance):
    """The cubic convolution kernel with a = -0.5.

    Keys, Cubic Convolution Interpolation for Digital Image Processing, 1981, equation 15.
    """
    x = np.abs(distance)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def bicubic(plane, xs, ys):
    """Bicubic samples with the kernel as wide as an output pixel, as PIL's resize takes them.

    Pillow, src/libImaging/Resample.c, precompute_coeffs: weights beyond the edges are left out
    and the rest add up to 1.
    """
    plane = np.asarray(plane, np.float64)
    for axis, positions in ((0, ys), (1, xs)):
        width = max(1.0, positions[1] - positions[0])
        weights = cubic((np.arange(plane.shape[axis]) - positions[:, np.newaxis]) / width)
        weights /= weights.sum(axis=1, keepdims=True)
        plane = np.moveaxis(np.tensordot(weights, plane, (1, axis)), 0, axis)
    return plane


def timm_size(width, height, size, crop_pct):
    """Size before the centre crop of timm's eval transform for a square model."""
    short = math.floor(size / crop_pct)
    if width <= height:
        return short, int(short * height / width)
    return int(short * width / height), short


def centre_crop_start(length, size):
    """torchvision.transforms.functional.center_crop."""
    return round((length - size) / 2.0)


def positions(length, resized, first, count):
    """Source positions of `count` pixels of a resized line, from its pixel `first` on."""
    return (first + np.arange(count) + 0.5) * (length / resized) - 0.5


def grid(fit, width, height, target_width, target_height, crop_pct=0.95):
    """Positions of the output pixels that show the picture, and where they start: xs, ys, x, y."""
    if fit == "crop":
        assert target_width == target_height
        resized = timm_size(width, height, target_width, crop_pct)
        left = centre_crop_start(resized[0], target_width)
        top = centre_crop_start(resized[1], target_height)
        return (
            positions(width, resized[0], left, target_width),
            positions(height, resized[1], top, target_height),
            0,
            0,
        )
    if fit == "stretch":
        return (
            positions(width, target_width, 0, target_width),
            positions(height, target_height, 0, target_height),
            0,
            0,
        )
    scale = min(target_width / width, target_height / height)
    columns = 2 * max(1, round(width * scale / 2))
    rows = 2 * max(1, round(height * scale / 2))
    return (
        positions(width, columns, 0, columns),
        positions(height, rows, 0, rows),
        (target_width - columns) // 4 * 2,
        (target_height - rows) // 4 * 2,
    )


def mean_2x2(plane):
    """Averages blocks of 2x2."""
    return (plane[0::2, 0::2] + plane[0::2, 1::2] + plane[1::2, 0::2] + plane[1::2, 1::2]) / 4


def rgb_to_yuv(rgb):
    """BT.601, full range: (..., 3) RGB in 0..255 to Y, U, V."""
    r, g, b = np.moveaxis(np.asarray(rgb, np.float64), -1, 0)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    return y, (b - y) / 1.772 + 128, (r - y) / 1.402 + 128


def to_limited(y, u, v):
    """Full range to limited range."""
    return 16 + y * 219 / 255, 128 + (u - 128) * 224 / 255, 128 + (v - 128) * 224 / 255


def to_full(y, u, v):
    """Limited range to full range."""
    return (y - 16) * 255 / 219, 128 + (u - 128) * 255 / 224, 128 + (v - 128) * 255 / 224


def half_positions(places, divisor):
    """Positions of output chroma samples on a source plane of 1/`divisor` of the resolution.

    An output chroma sample sits in the middle of two output pixels.
    """
    middles = (places[0::2] + places[1::2]) / 2
    return (middles + 0.5) / divisor - 0.5


def is_luma_first(xs, ys):
    """Whether an antialiased RGB picture is converted to Y before Y is sampled."""
    if not (shrinks(xs) and shrinks(ys)):
        return False
    width, height = (len(each) * (each[1] - each[0]) for each in (xs, ys))
    return width * height / used_rows(ys)[1] <= 400_000


def sampled_rgb(rgb, where, sample=bilinear):
    """Y, U, V of the picture's part of the output for an RGB source."""
    xs, ys, _, _ = where
    if sample is antialiased and is_luma_first(xs, ys):
        return sampled_yuv(*rgb_to_yuv(rgb), where, sample)
    y, u, v = rgb_to_yuv(sample(rgb, xs, ys))
    return y, mean_2x2(u), mean_2x2(v)


def sampled_yuv(y, u, v, where, sample=bilinear):
    """The same for a source with planes of its own; u and v may be subsampled."""
    xs, ys, _, _ = where
    divisor_y, divisor_x = (round(a / b) for a, b in zip(y.shape, u.shape, strict=True))
    chroma = sample(
        np.stack([u, v], -1), half_positions(xs, divisor_x), half_positions(ys, divisor_y)
    )
    return sample(y, xs, ys), chroma[..., 0], chroma[..., 1]


def assemble(planes, where, width, height, grey=127.0):
    """Y, U, V of the picture's part to a whole float NV12 image, padding included."""
    _, _, left, top = where
    y, u, v = (np.clip(each, 0, 255) for each in planes)
    out = np.full((height * 3 // 2, width), 128.0)
    out[:height] = grey
    out[top : top + y.shape[0], left : left + y.shape[1]] = y
    chroma = out[height:].reshape(height // 2, width // 2, 2)
    rows = slice(top // 2, top // 2 + u.shape[0])
    columns = slice(left // 2, left // 2 + u.shape[1])
    chroma[rows, columns, 0] = u
    chroma[rows, columns, 1] = v
    return out


def bayer_mosaic(rgb, pattern):
    """An RGB picture as a sensor sees it; pattern `rggb` is first row R G, second row G B."""
    mosaic = np.empty(rgb.shape[:2], rgb.dtype)
    for index, letter in enumerate(pattern):
        row, column = divmod(index, 2)
        mosaic[row::2, column::2] = rgb[row::2, column::2, "rgb".index(letter)]
    return mosaic


def picture(width, height, seed=0, blob=12):
    """A smooth random RGB picture, uint8: at most 255 / `blob` levels between neighbours."""
    random = np.random.default_rng(seed)
    cells = random.uniform(0, 255, (max(2, height // blob), max(2, width // blob), 3))
    xs = np.linspace(0, cells.shape[1] - 1, width)
    ys = np.linspace(0, cells.shape[0] - 1, height)
    return np.rint(bilinear(cells, xs, ys)).astype(np.uint8)


def detailed_picture(width, height, seed=0):
    """An RGB picture, uint8, as rich in detail as photos: noise of amplitude 1/f, and stripes."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, np.newaxis], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    noise = random.standard_normal((2, 3, *frequency.shape)) / frequency
    natural = np.fft.irfft2(noise[0] + 1j * noise[1], (height, width))
    rows, columns = np.mgrid[:height, :width]
    stripes = np.where((columns + 2 * rows) // 97 % 2, 20, -20)
    picture = 128 + 40 * natural / natural.std() + stripes
    return np.clip(np.rint(np.moveaxis(picture, 0, -1)), 0, 255).astype(np.uint8)
