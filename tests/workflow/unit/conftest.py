"""The runtime without Ray: pure parts, storage, and whole workflows in this process."""

import os

from hypothesis import settings

# The same examples on every run. HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile(
    "fixed", deadline=None, derandomize=True, database=None, max_examples=40, stateful_step_count=25
)
settings.register_profile("explore", deadline=None, max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
