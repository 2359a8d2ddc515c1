"""PNG figures of a run: overlays on slices, learning curves, scores per class.

Arrays and plain rows go in, one file comes out, written as a whole or not at all. Colours are
those of Okabe and Ito, which colour-blind readers can tell apart. No state is kept between calls
and no display is needed.
"""

from __future__ import annotations

from crossvox.figures.charts import dice_bars, learning_curves
from crossvox.figures.overlays import overlay

__all__ = ["dice_bars", "learning_curves", "overlay"]
