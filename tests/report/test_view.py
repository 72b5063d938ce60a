"""``promptopt view`` over HTTP on loopback: what it shows, what it refuses, and that it follows a run."""

import base64
import hashlib
import html
import http.client
import json
import os
import re
import shutil
import socket
import threading
from urllib.parse import quote, urlsplit

import pytest

from promptopt.errors import ConfigError
from promptopt.report.live import live_page
from promptopt.report.pages import page
from promptopt.report.view import Server

HOSTILE = "<img src=x onerror=alert(1)>&\"'"


@pytest.fixture
def server(folder):
    server = Server(folder)
    thread = threading.Thread(target=server.run)
    thread.start()
    yield server
    server.stop()
    thread.join()


@pytest.fixture
def ask(server):
    """One request: returns status, headers and text."""
    where = urlsplit(server.url)

    def send(path, method="GET", body=None, **headers):
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=20)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, sent)
        answer = connection.getresponse()
        found = answer.status, dict(answer.getheaders()), answer.read().decode()
        connection.close()
        return found

    return send


def state(ask, path):
    return json.loads(ask(f"/state?page={quote(path, safe='')}")[2])


def test_it_listens_on_loopback_alone(server):
    assert urlsplit(server.url).hostname == "127.0.0.1"
    assert server._http.socket.getsockname()[0] == "127.0.0.1"


def test_the_list_leads_to_the_runs(ask):
    status, headers, text = ask("/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert "<h1>1 run</h1>" in text
    (address,) = re.findall(r'<a href="(/run/[^"]+)">', text)
    status, _, text = ask(address)
    assert status == 200
    assert 'id="setup"' in text


@pytest.mark.parametrize("path", ["/", "/run/one", "/leaderboard", "/state?page=/", "/nope"])
def test_every_answer_has_its_headers(ask, path):
    _, headers, _ = ask(path)
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "unsafe-eval" not in headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/", "/run/one", "/leaderboard"])
def test_the_policy_names_the_two_scripts_of_the_page_and_no_other(ask, path):
    _, headers, text = ask(path)
    policy = headers["Content-Security-Policy"]
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    hashes = {f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts}
    (allowed,) = re.findall(r"script-src ([^;]*)", policy)
    assert len(scripts) == 2
    assert set(allowed.split()) == hashes
    assert "connect-src 'self'" in policy
    assert "Content-Security-Policy" not in text  # a second policy, of the page's own, would forbid to ask for changes


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_it_only_shows(ask, method):
    status, headers, _ = ask("/", method, body="x" * 10 if method in ("POST", "PUT") else None)
    assert status == 405
    assert headers["Allow"] == "GET, HEAD"


def test_head_is_get_without_a_body(ask):
    status, headers, text = ask("/", "HEAD")
    assert (status, text) == (200, "")
    assert int(headers["Content-Length"]) == len(ask("/")[2].encode())


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example", "", "127.0.0.1:x",
             "0.0.0.0", "[::2]", "user@127.0.0.1"]
)  # fmt: skip
def test_a_name_that_was_made_to_point_here_shows_nothing(ask, host):
    status, _, text = ask("/", Host=host)
    assert status == 403
    assert "run" not in text


def test_loopback_has_several_names(ask, server):
    port = urlsplit(server.url).port
    for host in ("127.0.0.1", f"127.0.0.1:{port}", f"localhost:{port}", "LOCALHOST", f"[::1]:{port}", "[::1]"):
        assert ask("/", Host=host)[0] == 200, host


def test_two_hosts_or_none_are_refused(server):
    where = urlsplit(server.url)
    for lines in ("Host: localhost\r\nHost: evil.example\r\n", ""):
        with socket.create_connection((where.hostname, where.port), timeout=20) as raw:
            raw.sendall(f"GET / HTTP/1.1\r\n{lines}Connection: close\r\n\r\n".encode())
            assert raw.makefile("rb").readline().split()[1] == b"403"


@pytest.mark.parametrize(
    "path",
    [
        "/run/../../secret",
        "/run/%2e%2e/secret",
        "/run/..%2fsecret",
        "/run/one/../../secret",
        "/run//etc",
        "/run/one/",
        "/run/one%00",
        "/run/one/run.json",
        "/run/.",
        "/run/one\\..",
        "//etc/passwd",
        "/run.json",
        "/static/../run.json",
    ],
)
def test_no_address_leads_out_of_the_listed_runs(ask, folder, path):
    shutil.copytree(folder / "one", folder.parent / "secret")
    assert ask(path)[0] == 404


def test_links_lead_nowhere(ask, folder, tmp_path):
    (tmp_path / "secret.txt").write_text("the secret")
    shutil.copytree(folder / "one", tmp_path / "outside")
    (folder / "linked").symlink_to(tmp_path / "outside", target_is_directory=True)
    shutil.copytree(folder / "one", folder / "two")
    (folder / "two" / "run.json").unlink()
    (folder / "two" / "run.json").symlink_to(tmp_path / "secret.txt")
    assert ask("/run/linked")[0] == 404
    status, _, text = ask("/run/two")
    assert status == 200
    assert "is a link" in text
    assert "the secret" not in text + ask("/")[2] + ask("/leaderboard")[2]


def test_names_and_texts_are_escaped(ask, folder):
    (folder / "one").rename(folder / HOSTILE)
    about = json.loads((folder / HOSTILE / "run.json").read_text())
    (folder / HOSTILE / "run.json").write_text(json.dumps({**about, "name": HOSTILE, "label": HOSTILE}))
    text = ask("/")[2]
    assert "<img" not in text
    assert html.escape(HOSTILE, quote=False).split("&amp;")[0] in text
    (address,) = re.findall(r'<a href="(/run/[^"]+)">', text)
    status, _, text = ask(html.unescape(address))
    assert status == 200
    assert "<img" not in text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["run.json", "result.json", *(f"{n}.jsonl" for n in ("trials", "examples", "cells"))])
@pytest.mark.parametrize("text", ["{", "[]\n", '{"a": 1}\n', "\xff\n", ""])
def test_a_damaged_run_is_told_and_no_error_of_the_server(ask, folder, name, text):
    shutil.copytree(folder / "one", folder / "two")
    (folder / "two" / name).write_text(text, encoding="latin-1")
    for path in ("/", "/run/two", "/run/one", "/leaderboard"):
        assert ask(path)[0] == 200, path


def test_folders_that_are_no_runs_are_listed_apart(ask, folder):
    (folder / "notes").mkdir()
    (folder / "refined").mkdir()
    (folder / "refined" / "run.json").write_text('{"refine": {}}')
    text = ask("/")[2]
    assert "<h1>1 run</h1>" in text
    assert "Other folders" in text
    assert ask("/run/notes")[0] == 200
    assert "promptopt refine" in ask("/run/refined")[2]


def test_a_folder_without_runs(tmp_path):
    (tmp_path / "runs").mkdir()
    server = Server(tmp_path / "runs")
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        where = urlsplit(server.url)
        for path, told in (("/", "No runs yet"), ("/leaderboard", "No leaderboard yet")):
            connection = http.client.HTTPConnection(where.hostname, where.port, timeout=20)
            connection.request("GET", path)
            assert told in connection.getresponse().read().decode()
            connection.close()
    finally:
        server.stop()
        thread.join()


def test_the_version_changes_with_what_is_shown_and_else_stays(ask, folder):
    before = {path: state(ask, path)["version"] for path in ("/", "/run/one", "/leaderboard")}
    assert {path: state(ask, path)["version"] for path in before} == before
    assert f'data-version="{before["/run/one"]}"' in ask("/run/one")[2]
    with (folder / "one" / "search.jsonl").open("a") as file:
        file.write('{"kind": "pool", "texts": 3}\n')
    after = {path: state(ask, path)["version"] for path in before}
    assert all(after[path] != before[path] for path in before)
    shutil.copytree(folder / "one", folder / "two")
    last = {path: state(ask, path)["version"] for path in before}
    assert last["/run/one"] == after["/run/one"]
    assert last["/"] != after["/"]


def test_a_run_is_followed_from_unfinished_to_its_result(ask, folder):
    (folder / "one" / "result.json").rename(folder.parent / "result.json")
    assert "<h1>Not finished" in ask("/run/one")[2]
    assert state(ask, "/run/one")["told"] == "Live: going on"
    (folder.parent / "result.json").rename(folder / "one" / "result.json")
    assert "<h1>Not finished" not in ask("/run/one")[2]
    assert state(ask, "/run/one")["told"] == "Live: finished"
    shutil.rmtree(folder / "one")
    assert ask("/run/one")[0] == 404
    assert ask("/state?page=/run/one")[0] == 404


def test_a_line_that_is_being_written_is_no_damage(ask, folder):
    (folder / "one" / "result.json").unlink()
    for name in ("trials.jsonl", "events.jsonl", "cells.jsonl", "search.jsonl"):
        with (folder / "one" / name).open("a") as file:
            file.write('{"trial": 99, "cand')
    assert "<h1>Not finished" in ask("/run/one")[2]


def test_a_page_is_made_once_as_long_as_nothing_changes(server, ask, folder, monkeypatch):
    import promptopt.report.run_page as module

    made = []
    real = module.run_page
    monkeypatch.setattr(module, "run_page", lambda path: made.append(path) or real(path))
    ask("/run/one")
    ask("/run/one")
    assert len(made) == 1
    os.utime(folder / "one" / "trials.jsonl")
    ask("/run/one")
    assert len(made) == 2


def test_runs_that_must_not_be_compared_are_refused_in_words_with_a_way_on(ask, folder):
    shutil.copytree(folder / "one", folder / "two")
    about = json.loads((folder / "two" / "run.json").read_text())
    (folder / "two" / "run.json").write_text(
        json.dumps({**about, "task": "f" * 64, "metric": "another", "label": "other"})
    )
    text = ask("/leaderboard")[2]
    assert "<h1>These runs make no leaderboard</h1>" in text
    assert "differ in metric" in text
    (address,) = re.findall(r'<a href="(/leaderboard\?[^"]+)">', text)
    status, _, text = ask(address)
    assert status == 200
    assert "These runs make no leaderboard" not in text
    assert f"promptopt leaderboard {folder} --mixed" in text


def test_it_only_reads(ask, folder):
    def files():
        return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    before = files()
    for path in ("/", "/run/one", "/leaderboard", "/state?page=/"):
        ask(path)
    assert files() == before


def test_a_port_that_is_taken_is_told_with_the_fix(server, folder):
    port = urlsplit(server.url).port
    with pytest.raises(ConfigError, match=f"Port {port} is in use. Take another with --port, or --port 0"):
        Server(folder, port)


def test_no_such_folder(tmp_path):
    with pytest.raises(ConfigError, match="Expected a folder of runs"):
        Server(tmp_path / "nope")


def test_a_connection_can_be_used_again_and_a_body_sent_along_ends_it(server):
    where = urlsplit(server.url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=20)
    for _ in range(2):
        connection.request("GET", "/state?page=/")
        assert connection.getresponse().read()
    connection.close()
    with socket.create_connection((where.hostname, where.port), timeout=20) as raw:
        smuggled = b"GET /run/one HTTP/1.1\r\nHost: evil\r\n\r\n"
        raw.sendall(b"GET /state?page=/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(smuggled))
        raw.sendall(smuggled)
        assert raw.makefile("rb").read().count(b"HTTP/1.1 ") == 1


def test_what_is_no_page_of_ours_is_not_made_live():
    for text in ("", "<html><script>x</script></html>"):
        with pytest.raises(ValueError, match="Expected a page"):
            live_page(text, "v", "/")
    made = page("view_message.html", title="t", text="<script>x</script>", links=())
    assert live_page(made, '"><b>', "/")[0].count("<script>") == 2
