"""Law 10: importing promptopt, or asking for help, loads nothing heavy."""

import subprocess
import sys

import pytest

STRANGERS = [
    "torch",
    "transformers",
    "dspy",
    "openai",
    "datasets",
    "pandas",
    "aiohttp",
    "xllamacpp",
    "scipy",
    "numpy",
    "jsonschema",
]


@pytest.mark.parametrize(
    "program",
    [
        "import promptopt",
        "import promptopt_cli.main",
        "import sys; sys.argv = ['promptopt', '--help']\n"
        "import promptopt_cli.main\n"
        "try: promptopt_cli.main.main()\n"
        "except SystemExit: pass",
    ],
    ids=["import", "import cli", "help"],
)
def test_no_stranger_is_loaded(program):
    check = f"\nimport sys; print('LOADED', [m for m in {STRANGERS} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program + check], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("LOADED []"), done.stdout[-300:]


def test_public_names_resolve():
    import promptopt

    assert len(promptopt.__all__) <= 30
    for name in promptopt.__all__:
        assert getattr(promptopt, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = promptopt.nothing
