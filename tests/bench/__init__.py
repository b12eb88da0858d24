"""Side by side with the peers: ratios measured in one run, never asserted. `python -m tests.bench` runs all of them."""
