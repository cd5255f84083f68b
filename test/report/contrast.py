"""Contrast of what the probe finds on a page, as WCAG 2.1 asks for it."""

import numpy as np


def luminance(colour):
    """https://www.w3.org/TR/WCAG21/#dfn-relative-luminance"""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(each):
    """https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio"""
    *colour, alpha = each["colour"]
    behind = np.array(each["behind"][:3]) / 255
    mixed = alpha * np.array(colour) / 255 + (1 - alpha) * behind
    low, high = sorted((luminance(mixed), luminance(behind)))
    return (high + 0.05) / (low + 0.05)


def check_contrast(page):
    assert len(page["texts"]) > 50 and len(page["drawn"]) > 20
    assert min(page["texts"], key=contrast)["text"]
    for each in page["texts"]:
        assert contrast(each) >= 4.5, each
    for each in page["drawn"]:
        assert each["stroke"] >= 1 or each["kind"] in ("bars", "band"), each
        assert contrast(each) >= 3, each
