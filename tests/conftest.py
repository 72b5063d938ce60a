"""Shared by all tests: where they write, which is not where the user's completions are."""

import os
import shutil
import tempfile

# Before numpy is imported: matrices are small here, and several processes' threads would fight for the cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Every run writes through to the disk again and again: in memory, where there is plenty, that costs no time.
_MEMORY = "/dev/shm"
_chosen = {"TMPDIR", "PYTEST_DEBUG_TEMPROOT"} & set(os.environ)
if not _chosen and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > 4 * 2**30:
    os.environ["PYTEST_DEBUG_TEMPROOT"] = _MEMORY  # for tmp_path alone: what others keep in TMPDIR stays there

# Before promptopt is imported: tests neither read nor fill the user's completion cache. Models stay where they are.
_REAL_HOME = os.environ.get("PROMPTOPT_HOME")
os.environ["PROMPTOPT_TEST_HOME"] = _tmp = tempfile.mkdtemp(
    prefix="promptopt-tests-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")
)
os.environ.setdefault(
    "PROMPTOPT_MODELS", os.path.join(_REAL_HOME or os.path.expanduser("~/.cache/promptopt"), "models")
)
os.environ["PROMPTOPT_HOME"] = _tmp

from hypothesis import settings  # noqa: E402 — the environment comes first

# A busy machine is no failure, and a run of CI repeats itself.
settings.register_profile("promptopt", deadline=None, derandomize=True)
settings.load_profile("promptopt")


def pytest_addoption(parser):
    parser.addoption(
        "--skips",
        metavar="FILE",
        help="add what was skipped to FILE, a line each: where what it lacked is there, pytest @FILE runs that alone",
    )


def pytest_configure(config):
    if config.option.skips:
        config.pluginmanager.register(Skips(config.option.skips))


class Skips:
    """Names of skipped tests and files in a file. All test processes add to it, so a name can be there twice."""

    def __init__(self, path):
        self._path = os.path.abspath(path)

    def pytest_runtest_logreport(self, report):
        if report.skipped and not hasattr(report, "wasxfail"):
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(f"{report.nodeid}\n")

    pytest_collectreport = pytest_runtest_logreport  # a whole file, by importorskip at its top


def pytest_unconfigure():
    """The cache folder goes as it came."""
    shutil.rmtree(_tmp, ignore_errors=True)
