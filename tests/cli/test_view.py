"""``promptopt view``: its address, a browser, Ctrl-C, and what is not there."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def started(folder):
    """The command in a process of its own, until it has said where it is."""
    running = []

    def start(*arguments, **environment):
        running.append(
            subprocess.Popen(
                [sys.executable, "-m", "promptopt_cli.main", "view", *arguments],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **environment},
            )
        )
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_and_ends_cleanly(started, folder, how):
    (folder / "runs").mkdir()
    process = started("--port", "0", "--no-open")
    line = process.stdout.readline()
    assert line.startswith("Runs of runs at http://127.0.0.1:")
    url = line.split(" at ")[1].split()[0]
    with urllib.request.urlopen(url, timeout=20) as answer:
        assert "No runs yet" in answer.read().decode()
    process.send_signal(how)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert (out, err) == ("", "Ended.\n")


def test_it_opens_a_browser_unless_told_not_to(started, folder):
    (folder / "runs").mkdir()
    browser = folder / "browser"
    browser.write_text(f"#!{sys.executable}\nimport sys\nopen({str(folder / 'opened')!r}, 'w').write(sys.argv[1])\n")
    browser.chmod(0o755)
    for option, opens in (("--no-open", False), ("--json", True)):
        process = started("--port", "0", option, BROWSER=str(browser))
        first = process.stdout.readline()
        until = time.monotonic() + (10 if opens else 1)
        while time.monotonic() < until and not (folder / "opened").exists():
            time.sleep(0.05)
        assert (folder / "opened").exists() == opens
        process.send_signal(signal.SIGINT)
        told = first + process.stdout.read()  # what readline had read ahead is in it
    url = json.loads(told)["url"]
    assert (folder / "opened").read_text() == url


def test_no_such_folder(promptopt):
    code, _, err = promptopt("view", "nope", "--no-open")
    assert code == 2
    assert "Expected a folder of runs, found no nope" in err


def test_a_port_that_is_taken(promptopt, folder):
    import socket

    (folder / "runs").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, _, err = promptopt("view", "--port", str(port), "--no-open")
    assert code == 2
    assert f"Port {port} is in use. Take another with --port" in err
