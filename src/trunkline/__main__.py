"""``python -m trunkline``: the command line."""

from __future__ import annotations

from trunkline.cli.main import main

if __name__ == "__main__":
    main()
