"""``promptopt serve`` as users start and stop it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

pytest.importorskip("fastapi", reason="needs promptopt[serve]")

from promptopt.serve.server import bind

pytestmark = pytest.mark.slow

TOKEN = "a-very-secret-token-0123456789"
# A provider whose model can be told to take its time.
SLOW = """
import time
from promptopt.lm import BACKENDS
from promptopt.lm.scripted import ScriptedLM
def reply(request):
    text = request.messages[-1][1]
    if text.startswith("sleep"):
        print("asleep", flush=True)
        time.sleep(float(text.split()[1]))
    return text.upper()
BACKENDS.register("slow", lambda spec: ScriptedLM(reply, digest="slow", max_batch=1))
from promptopt_cli.main import main
main()
"""


@contextlib.contextmanager
def started(*arguments, model="slow/x", **environment):
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, "serve", model, "--port", "0", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ask(url, text, token=None):
    body = json.dumps({"model": "x", "messages": [{"role": "user", "content": text}]}).encode()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(f"{url}/chat/completions", body, headers)
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.load(reply)["choices"][0]["message"]["content"]


def asking(url, text):
    """A client in a process of its own, whose output is the answer."""
    program = f"""
import sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
from test_serve import ask
print(ask({url!r}, {text!r}))
"""
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def url_of(process):
    line = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+/v1", line)
    assert found, (line, process.stderr.read() if process.poll() is not None else "")
    return line, found[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_how_to_use_it_and_stops_with_0(number):
    with started() as process:
        line, url = url_of(process)
        assert line.strip() == f'Serving slow/x at {url}; in a task file: {{id: "openai/x", base_url: "{url}"}}'
        assert ask(url, "hello") == "HELLO"
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out) == (0, "")
        assert err.strip() == "Loading slow/x …"


def test_what_is_in_flight_is_finished():
    with started() as process:
        _, url = url_of(process)
        client = asking(url, "sleep 1")
        assert process.stdout.readline() == "asleep\n"
        process.send_signal(signal.SIGTERM)
        assert client.communicate(timeout=30)[0] == "SLEEP 1\n"
        assert process.wait(30) == 0


def test_a_model_that_does_not_end_is_left_behind_when_told_again():
    with started() as process:
        _, url = url_of(process)
        client = asking(url, "sleep 600")
        assert process.stdout.readline() == "asleep\n"
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert "503" in client.communicate(timeout=30)[1]


def test_the_token_comes_from_the_environment_and_is_never_shown():
    with started("--token-env", "SERVE_TOKEN", SERVE_TOKEN=TOKEN) as process:
        line, url = url_of(process)
        assert 'key: "${SERVE_TOKEN}"' in line
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(url, "hello")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(url, "hello", TOKEN + "x")
        assert ask(url, "hello", TOKEN) == "HELLO"
        process.terminate()
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0
        assert TOKEN not in line + out + err


def test_json_is_one_document():
    with started("--json") as process:
        out = ""
        while not out.rstrip().endswith("\n}"):
            out += process.stdout.readline()
        told = json.loads(out)
        assert told["models"] == [{"id": "slow/x", "name": "x"}]
        assert ask(told["url"], "hello") == "HELLO"
        process.terminate()
        assert process.communicate(timeout=30)[0] == ""
        assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nobody/x"], "Unknown model provider 'nobody'"),
        (["hf"], "Expected a model as 'provider/name'"),
        (["openai/gpt-x"], "a server already"),
        (["scripted/ecko"], "Did you mean 'echo'"),
        (["scripted/echo", "--host", "0.0.0.0"], "--token-env NAME"),
        (["scripted/echo", "--token-env", "NOT_SET_ANYWHERE"], "it is not set, or empty"),
        (["scripted/echo", "--embed", "scripted/echo"], "Expected --embed to name a model that makes vectors"),
        (["scripted/echo", "--port", "70000"], "--port"),
        (["scripted/echo", "--queue", "0"], "--queue"),
    ],
)
def test_mistakes_are_told_with_exit_code_2(promptopt, arguments, says):
    code, out, err = promptopt("serve", *arguments)
    assert code == 2
    assert says in err
    assert out == ""
    assert "Traceback" not in err


def test_a_port_in_use_is_told(promptopt):
    with bind("127.0.0.1", 0, None) as taken:
        code, _, err = promptopt("serve", "scripted/echo", "--port", str(taken.getsockname()[1]))
    assert code == 2
    assert "is in use. Take another with --port" in err


def test_the_missing_extra_is_told(folder):
    program = "import sys; sys.modules['uvicorn'] = None\n" + SLOW
    program = program.replace("main()", "import importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'uvicorn' else real(name, *a)\nmain()")  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", program, "serve", "scripted/echo"], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 2
    assert "promptopt serve needs uvicorn, not installed. Run: pip install 'promptopt[serve]'" in done.stderr
