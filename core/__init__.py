"""Real backends of the app, without a user interface. One file (or package) is one topic, read from top to bottom.

Letters of tensor shapes, everywhere: B batch, T query tokens, S key tokens, C width, H heads, D head width,
V vocabulary, L layers, R rank, N devices. Units stand in names: `peak_bytes`, `step_seconds`, `loss_nats`.
GB is 1e9 bytes and GiB is 2**30; which of the two is always said.
"""

import os

# Threads of a matrix product wait for each other by spinning. Where another program needs the core, long spinning turns
# a step of
# 40 ms into seconds (measured: 3.4 s); after a short spin they sleep instead. Read once, when torch is first imported.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")

from core.foundations.machine import mend_torchvision

_torchvision_operators = mend_torchvision()  # kept alive here: it must come before anything that imports torchvision
