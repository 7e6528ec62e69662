"""A picture of an explorer, as the documentation shows it: the top of the page in a window of 1300 pixels, light.

.venv/bin/python benchmarks/explorer_picture.py results/embedded/figures/explorer.html docs/images/explorer.png
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from explorer import open_page, show


def main() -> None:
    """Open the page, choose two runs, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument(
        "--second", default="", help="number of the second run in the page's list, from 0; none without it"
    )
    parser.add_argument("--height", type=int, default=900)
    given = parser.parse_args()
    with open_page(given.page, given.height) as browser:
        show(browser, given.second, "most")
        time.sleep(2)  # the charts follow
        given.picture.write_bytes(browser.get_screenshot_as_png())


if __name__ == "__main__":
    main()
