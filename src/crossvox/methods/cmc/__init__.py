"""CMC (Zhou et al., MICCAI 2024), to be read beside the paper.

| paper | module |
|---|---|
| E^a, E^b, MIA, fusion layer, D^a, D^b (figure 1) | `networks.py` |
| modality-independent awareness, MIA (§ 2.1) | `mia.py` |
| fusion layer (§ 2.1, figure 1) | `fusion.py` |
| L_Sup (eq. 2) and the total loss (§ 2.2) | `method.py` |
| L_CSC (eq. 1) | `csc.py` |
| L_CAC (eq. 3) | `cac.py` |
| α and β (§ 2.2) | `schedules.py` |
| adapter of the ViT blocks (figure 1 b) | `crossvox/networks/sam/adapter.py` |

docs/explanation/paper.md lists what the paper leaves open and what is done here.
"""

from crossvox.methods.cmc.cac import CACLoss
from crossvox.methods.cmc.csc import CSCLoss
from crossvox.methods.cmc.fusion import Fusion
from crossvox.methods.cmc.method import CMC
from crossvox.methods.cmc.mia import MIA

__all__ = ["CMC", "MIA", "CACLoss", "CSCLoss", "Fusion"]
