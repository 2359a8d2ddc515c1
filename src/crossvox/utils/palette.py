"""Colours of classes and errors, the same in figures, label maps and viewers."""

from __future__ import annotations

COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2")
"""The colours of Okabe and Ito without black; colour-blind readers can tell them apart."""

SHADES = ((0, 0.0), (0, 0.45), (255, 0.55))
"""Grey value and its share, for the plain, the darker and the lighter colours."""

ERRORS = {"missed": "#22FFBB", "extra": "#AA55FF", "wrong class": "#5500FF"}
"""Kind of error → colour. No class has one of these, and colour-blind readers see that, too."""


def class_colour(index: int) -> str:
    """Return the colour of a foreground class (from 1) as #RRGGBB; colours repeat after 21."""
    turn, place = divmod(index - 1, len(COLOURS))
    grey, share = SHADES[turn % len(SHADES)]
    channels = (int(COLOURS[place][k : k + 2], 16) for k in (1, 3, 5))
    return "#" + "".join(f"{round(c + share * (grey - c)):02X}" for c in channels)


def class_rgb(index: int) -> tuple[int, int, int]:
    """Return `class_colour` as red, green and blue, 0 … 255."""
    colour = class_colour(index)
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
