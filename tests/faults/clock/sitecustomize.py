"""The wall clock of a cluster's Python processes, which a fault may set: seconds ahead, in a file.

Python imports this when it starts, where the folder is in PYTHONPATH. Monotonic clocks go on as they are.
(The program faketime does this from outside; Ray's processes do not start under it.)
"""

import os
import time

_PATH = os.environ["FAULTS_CLOCK"]
_KEPT_S = 0.02  # so long an answer is kept: a step is seen at once, and reading costs little
_time = time.time
_known = [0.0, 0.0]  # since when, by the monotonic clock, and the seconds


def _ahead() -> float:
    now = time.monotonic()
    if now - _known[0] > _KEPT_S:
        try:
            with open(_PATH, encoding="ascii") as file:
                _known[:] = now, float(file.read() or 0)
        except OSError:
            _known[:] = now, 0.0
    return _known[1]


time.time = lambda: _time() + _ahead()
