"""The modules of assets/js in one file, assets/app.js, and the style without its spaces, assets/app.css: a page loads
two files in place of thirty. Write them with `make bundle`.

The first line of each names what it was made of; where that has changed since, the page loads the sources themselves.
"""

import hashlib
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "assets" / "js").rglob("*.js"))  # main.js imports the others
STYLE = ROOT / "assets" / "style.css"
SCRIPT_BUNDLE, STYLE_BUNDLE = ROOT / "assets" / "app.js", ROOT / "assets" / "app.css"
SOURCES = {SCRIPT_BUNDLE: MODULES, STYLE_BUNDLE: [STYLE]}


def first_line(bundle: Path) -> str:
    """What a bundle begins with if it is of its sources as they are now."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in SOURCES[bundle])).hexdigest()
    return f"/* Made by `make bundle`, sha256 of its sources {digest} */\n"


def is_current(bundle: Path) -> bool:
    """Whether a bundle is of its sources as they are now."""
    if not bundle.exists():
        return False
    with bundle.open(encoding="utf-8") as file:
        return file.readline() == first_line(bundle)


def write() -> None:
    """Bundle with esbuild, a tool of development (npm ci brings it)."""
    for bundle, words in (
        (SCRIPT_BUNDLE, ["assets/js/main.js", "--bundle", "--format=esm", "--target=es2022"]),
        (STYLE_BUNDLE, ["assets/style.css"]),
    ):
        command = ["npx", "esbuild", *words, "--minify"]
        made = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        bundle.write_text(first_line(bundle) + made, encoding="utf-8")


if __name__ == "__main__":
    write()
