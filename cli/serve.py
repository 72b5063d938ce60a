"""``promptopt serve``."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from . import options

_ENDLESS = 65_535


def serve(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model of this machine: hf/…, llamacpp/…, st/….")],
    embed: Annotated[str | None, typer.Option(metavar="MODEL", help="For embeddings: st/all-minilm-l6-v2.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; others than loopback need a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=_ENDLESS, help="0: any free one.")] = 8080,
    token_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="The environment variable that holds the token of clients.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; default: the best there is.")] = None,
    max_batch: Annotated[int | None, typer.Option(min=1, help="Most requests answered together.")] = None,
    queue: Annotated[int, typer.Option(min=1, help="Most requests that wait; another gets 429.")] = 512,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of one reply.")] = 4096,
    max_body: Annotated[int, typer.Option(min=1024, help="Most bytes of one request.")] = 4_000_000,
    wait_ms: Annotated[float, typer.Option(min=0, max=10_000, help="A batch starts when none came for so long.")] = 5.0,
    json: options.Json = False,
) -> None:
    """One model for several runs, as an OpenAI-compatible server; Ctrl-C or SIGTERM stops it in good order."""
    from promptopt.lm.spec import Generate, ModelSpec
    from promptopt.serve.app import Settings
    from promptopt.serve.server import Server, bind, open_served
    from promptopt.serve.wire import Limits

    from .console import console, error_console
    from .models import fetch
    from .safe import safe

    token = _token(token_env)
    generate = Generate(max_tokens=min(Generate().max_tokens, max_tokens))
    specs = [ModelSpec(model, generate=generate, concurrency=max_batch, device=device)]
    if embed is not None:
        specs.append(ModelSpec(embed, device=device))
    served = [open_served(spec) for spec in specs]
    if embed is not None:
        _check_embedder(served[1].model, embed)
    listening = bind(host, port, token)
    for spec in specs:
        fetch(spec.provider, spec.name, json)
    limits = Limits(body=max_body, max_tokens=max_tokens)
    server = Server(served, listening, Settings(max_batch, queue, wait_ms / 1000, token, limits))

    def ready() -> None:
        about = {"url": server.url, "models": [{"id": one.id, "name": one.name} for one in served]}
        if json:
            options.print_json(about)
        else:
            key = f', key: "${{{token_env}}}"' if token_env else ""
            use = f'{{id: "openai/{served[0].name}", base_url: "{server.url}"{key}}}'
            console().print(f"Serving {safe(model)} at {server.url}; in a task file: {safe(use)}", soft_wrap=True)
        sys.stdout.flush()

    if not json:
        error_console().print(f"Loading {safe(model)} …", soft_wrap=True)
    if not server.run(ready):
        _leave_at_once()


def _token(name: str | None) -> str | None:
    """The token in this environment variable."""
    if name is None:
        return None
    from promptopt.errors import ConfigError

    # The name may be the token itself, given by mistake: it is not repeated.
    token = os.environ.get(name, "").strip()
    if not token:
        raise ConfigError(
            "Expected --token-env to name an environment variable that holds the token; it is not set, or empty."
        )
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ConfigError("The token holds characters that no header can carry. Take letters, digits and dashes.")
    return token


def _check_embedder(model: object, named: str) -> None:
    from promptopt.errors import ConfigError
    from promptopt.serve.app import can

    if not can(model, "embed"):
        raise ConfigError(f"Expected --embed to name a model that makes vectors (st/…), got {named}.")


def _leave_at_once() -> NoReturn:
    # The model still computes for nobody, in a thread that cannot be stopped: an orderly end would wait for it or
    # tear the library down under it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
