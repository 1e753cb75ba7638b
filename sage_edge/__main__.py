"""``python -m sage_edge``."""

import sys

from sage_edge.cli import main

sys.exit(main())
