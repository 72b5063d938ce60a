"""serve: one local model for many runs, behind an OpenAI-compatible server. It has never seen a task or a program."""

import importlib.util

from promptopt.errors import ConfigError

_missing = [name for name in ("fastapi", "uvicorn", "prometheus_client") if importlib.util.find_spec(name) is None]
if _missing:  # here, before the first file that imports one of them
    raise ConfigError(
        f"promptopt serve needs {' and '.join(_missing)}, not installed. Run: pip install 'promptopt[serve]'"
    )
