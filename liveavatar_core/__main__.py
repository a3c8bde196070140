"""`python -m liveavatar_core COMMAND ...`."""

from __future__ import annotations

import sys

from liveavatar_core.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
