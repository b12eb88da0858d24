"""Side by side with the peers: ratios measured in one run, never asserted. `python -m tests.bench` runs all of them."""

import core as core  # says how torch's threads wait for each other, which counts only before torch is imported
