"""`python -m omnivoice_triton` is `omnivoice-triton`."""

from __future__ import annotations

import sys

from omnivoice_triton.cli import main

if __name__ == "__main__":
    sys.exit(main())
