"""Models as other tools name them, as models of promptopt: whatever speaks OpenAI's protocol."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from promptopt.task.imports.imported import Notes, Variable
from promptopt.task.problems import quote

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LOCAL_HOSTS = {"localhost", "127.0.0.1", "0.0.0.0", "::1", "host.docker.internal"}  # noqa: S104 — compared, not bound

MOST_TEMPERATURE = 5.0
_EXTRA = (
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "reasoning_effort",
    "verbosity",
)
"""Settings that servers know by these names; others are not carried over, for any may hold a secret."""


@dataclass(frozen=True, slots=True)
class Service:
    """Somebody who serves models.

    Args:
        base_url: of the OpenAI-compatible API; None: OpenAI's own, or the configuration must say.
        key: the environment variable with the secret; None: none is needed.
    """

    base_url: str | None
    key: str | None


SERVICES: Mapping[str, Service] = {
    "openai": Service(None, "OPENAI_API_KEY"),
    "openrouter": Service("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "groq": Service("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "mistral": Service("https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "deepseek": Service("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    "togetherai": Service("https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    "fireworks": Service("https://api.fireworks.ai/inference/v1", "FIREWORKS_API_KEY"),
    "cerebras": Service("https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    "xai": Service("https://api.x.ai/v1", "XAI_API_KEY"),
    "anthropic": Service("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY"),
    "google": Service("https://generativelanguage.googleapis.com/v1beta/openai", "GOOGLE_API_KEY"),
    "ollama": Service("http://localhost:11434/v1", None),
    "vllm": Service("http://localhost:8000/v1", None),
    "localai": Service("http://localhost:8080/v1", None),
    "llama": Service("http://localhost:8080/v1", None),
    "litellm": Service("http://localhost:4000/v1", None),
    "lmstudio": Service("http://localhost:1234/v1", None),
}
_ALIASES = {
    "together": "togetherai",
    "together_ai": "togetherai",
    "fireworks_ai": "fireworks",
    "gemini": "google",
    "hosted_vllm": "vllm",
    "ollama_chat": "ollama",
    "lm_studio": "lmstudio",
    "nvidia_nim": "openai",
}


def service(name: str) -> Service | None:
    """The service of this name; None: nobody we know how to call."""
    return SERVICES.get(_ALIASES.get(name, name))


def model(
    provider: str,
    name: str,
    settings: Mapping[str, Any],
    notes: Notes,
    key: str,
    place: str,
    defaults: Mapping[str, Any],
    known: tuple[str, ...] = (),
) -> dict[str, Any] | None:
    """A model's entry in a task file; None: it cannot be called, which is noted.

    Args:
        provider: who serves it.
        name: of the model.
        settings: as the configuration has them, with the spellings of all tools.
        notes: takes what is lost.
        key: of the configuration, for notes.
        place: of the configuration, for notes.
        defaults: settings of the tool where none are given: temperature, max_tokens.
        known: settings that are read elsewhere.
    """
    found = service(provider)
    if found is None or not name:
        notes.add(
            key,
            f"the model {quote(f'{provider}:{name}')} has no way to be called from promptopt that is known; a server "
            "with OpenAI's protocol is {id: openai/<model>, base_url: …}.",
            place,
        )
        return None
    used = {*known}
    made: dict[str, Any] = {"id": f"openai/{name}"}
    url = _url(settings, used, notes, key, place) or found.base_url
    if url is not None:
        made["base_url"] = url
    variable = _variable(settings, used, found, url, notes, key, place)
    if variable is not None:
        made["key"] = Variable(f"${{{variable}}}")
    made["generate"] = _generate({**defaults, **settings}, used, notes, key, place)
    for setting in settings:
        if setting not in used:
            notes.add(f"{key}.{setting}", "promptopt has no such setting of a model.", place)
    return made


def told_variables(models: Mapping[str, Any]) -> list[str]:
    """Remarks on environment variables that must be set before the task can be loaded."""
    keys = [entry.get("key") for entry in models.values() if isinstance(entry, Mapping)]
    names = dict.fromkeys(str(key)[2:-1] for key in keys if key)
    return [f"models: the secret is read from the environment variable {name}; set it first." for name in names]


def _url(settings: Mapping[str, Any], used: set[str], notes: Notes, key: str, place: str) -> str | None:
    for name in ("apiBaseUrl", "api_base", "base_url", "baseUrl", "baseURL", "apiHost"):
        used.add(name)
        url = settings.get(name)
        if not isinstance(url, str) or not url:
            continue
        url = f"https://{url}/v1" if name == "apiHost" and "://" not in url else url
        try:
            parts = urlsplit(url)
            good = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc and not parts.query
        except ValueError:
            good = False
        if good and url.isprintable() and "{" not in url and " " not in url:
            return url
        notes.add(
            f"{key}.{name}", "expected http:// or https:// without user, password and query, got something else.", place
        )
    return None


def _variable(
    settings: Mapping[str, Any], used: set[str], found: Service, url: str | None, notes: Notes, key: str, place: str
) -> str | None:
    named = None
    for name in ("apiKeyEnvar", "api_key_env"):
        used.add(name)
        if isinstance(settings.get(name), str) and _NAME.fullmatch(settings[name]):
            named = settings[name]
    for name in ("apiKey", "api_key"):
        used.add(name)
        given = settings.get(name)
        if not isinstance(given, str) or not given:
            continue
        reference = re.fullmatch(r"\$?\{\{? ?(?:env\.)?([A-Za-z_][A-Za-z0-9_]*) ?\}?\}", given)
        if reference:
            named = reference.group(1)
            continue
        named = named or found.key or "OPENAI_API_KEY"
        notes.add(
            f"{key}.{name}", f"a secret is never copied. Put it into the environment as {named}, which is read.", place
        )
    if named is None and url is not None and found.key is not None:
        # OpenAI's own key is sent to OpenAI without being named; to a server that a file names, only when it says so.
        local = (urlsplit(url).hostname or "") in _LOCAL_HOSTS
        named = None if local else found.key
    return named


def _generate(settings: Mapping[str, Any], used: set[str], notes: Notes, key: str, place: str) -> dict[str, Any]:
    made: dict[str, Any] = {}
    used.add("temperature")
    temperature: Any = settings.get("temperature")
    if _is_number(temperature) and 0 <= temperature <= MOST_TEMPERATURE:
        made["temperature"] = temperature
    elif temperature is not None:
        notes.add(f"{key}.temperature", f"expected a number from 0 to {MOST_TEMPERATURE:g}.", place)
    for name in ("max_completion_tokens", "max_output_tokens", "maxTokens", "max_tokens", "num_predict"):
        used.add(name)
        most = settings.get(name)
        if "max_tokens" not in made and isinstance(most, int) and not isinstance(most, bool) and most >= 1:
            made["max_tokens"] = most
    used.add("stop")
    stop = settings.get("stop")
    if stop:
        made["stop"] = stops(stop, notes, f"{key}.stop", place)
    extra = {}
    for name in _EXTRA:
        value = settings.get(name)
        if value is not None and (_is_number(value) or (isinstance(value, str) and value.isalpha())):
            extra[name] = value
            used.add(name)
    if extra:
        made["extra"] = extra
    return made


def stops(given: Any, notes: Notes, key: str, place: str) -> list[str]:
    """Texts that end a reply."""
    texts = [given] if isinstance(given, str) else given if isinstance(given, list) else []
    kept = [text for text in texts if isinstance(text, str) and text and text not in ("\\n", "\\n\\n", "\\t")]
    if len(kept) < len(texts) or not texts:
        notes.add(key, "what is no text, or a backslash and letters instead of a line break, is left out.", place)
    return list(dict.fromkeys(kept))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
