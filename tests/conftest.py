"""Shared by all tests: their own cache folder, and nothing else."""

import os
import tempfile

# Before promptopt is imported: tests neither read nor fill the user's completion cache. Models stay where they are.
_REAL_HOME = os.environ.get("PROMPTOPT_HOME")
os.environ["PROMPTOPT_TEST_HOME"] = _tmp = tempfile.mkdtemp(prefix="promptopt-tests-")
os.environ.setdefault(
    "PROMPTOPT_MODELS", os.path.join(_REAL_HOME or os.path.expanduser("~/.cache/promptopt"), "models")
)
os.environ["PROMPTOPT_HOME"] = _tmp

from hypothesis import settings  # noqa: E402 — the environment comes first

# A busy machine is no failure, and a run of CI repeats itself.
settings.register_profile("promptopt", deadline=None, derandomize=True)
settings.load_profile("promptopt")
