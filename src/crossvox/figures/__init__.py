"""PNG figures of scans, label maps and scores.

Functions take arrays and plain rows and write one file, as a whole or not at all. They need no
display and keep no state between calls. Colours are those of Okabe and Ito, which colour-blind
readers can tell apart.
"""

from __future__ import annotations

from crossvox.figures.charts import learning_curves, score_dots
from crossvox.figures.overlays import overlay

__all__ = ["learning_curves", "overlay", "score_dots"]
