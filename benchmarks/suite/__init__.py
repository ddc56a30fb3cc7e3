"""The asv suite. Whichever commit is installed, the harness is that of this checkout."""

import sys
from pathlib import Path

import fast_momentum

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "benchmarks"))
fast_momentum.__path__.insert(0, str(CHECKOUT / "python" / "fast_momentum"))
