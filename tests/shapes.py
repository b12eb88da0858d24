"""Python with every annotation of `core` checked while it runs: `python -m tests.shapes FILE...` runs the files.

The shapes in a signature ("batch heads tokens width") are checked with the values of each call: jaxtyping compares them
with each other, beartype the types. Of a long list beartype looks at one item, drawn from Python's random numbers.
"""

import importlib
import os
import random
import runpy
import sys

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is taken where a float is asked for

if __name__ == "__main__":
    importlib.import_module("tests.shapes")  # where the hook finds `check`: this file itself is __main__
    with install_import_hook(["core"], "tests.shapes.check"):
        for path in sys.argv[1:]:
            random.seed(int(os.environ.get("DRAW", "0")))
            runpy.run_path(path, run_name="copied")
