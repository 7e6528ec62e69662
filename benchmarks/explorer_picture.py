"""A picture of an explorer, as the documentation shows it: the top of the page in a window of 1300 pixels, light.

.venv/bin/python benchmarks/explorer_picture.py results/tiny_quick/figures/explorer.html docs/images/explorer.png \
    --first 6 --second 9
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from explorer import choose, open_page


def main() -> None:
    """Open the page, choose two runs, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--first", default="0", help="number of the run in the page's list, from 0")
    parser.add_argument(
        "--second", default="", help="number of the second run in the page's list, from 0; none without it"
    )
    parser.add_argument("--height", type=int, default=1050)
    given = parser.parse_args()
    with open_page(given.page, given.height) as browser:
        choose(browser, "run", given.first)
        choose(browser, "other", given.second)
        time.sleep(2)  # the charts follow
        given.picture.write_bytes(browser.get_screenshot_as_png())


if __name__ == "__main__":
    main()
