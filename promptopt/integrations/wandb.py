"""Runs told to Weights & Biases: its config, a step a trial, the candidates as a table, the result and the run's files.

Where to is its own affair: ``WANDB_PROJECT`` (default: ``promptopt``), ``WANDB_ENTITY``, ``WANDB_MODE=offline``,
``WANDB_DIR`` and the rest. What it would gather by itself of the process (command line, output, packages, git) is left
out: a command line may hold a secret.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from typing import Any

from promptopt.errors import ConfigError
from promptopt.integrations.tracking import About, Outcome, Place, Step, plain_url

_SECONDS = 25  # to begin, and to end: within the time that a run waits for its tracker
_CODE = {"finished": 0, "interrupted": 130, "failed": 1}


class WandbTracker:
    """A run of Weights & Biases for a run of promptopt.

    Raises:
        ConfigError: the package or a login is missing.
    """

    def __init__(self) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ConfigError(
                f'The tracker wandb needs Weights & Biases ({error}). Install it: pip install "promptopt[wandb]"'
            ) from error
        settings = wandb.setup(settings=wandb.Settings(silent=True)).settings
        self._online = settings.mode in ("online", "run", "shared")
        # Asked for here and without a prompt: later it would ask in the middle of the run.
        if self._online and not wandb.login(prompt=False, verify=False):
            raise ConfigError(
                "Weights & Biases knows no key for this machine. Run: wandb login. Or set WANDB_API_KEY, or "
                "WANDB_MODE=offline to keep the run here."
            )
        self.where = plain_url(str(settings.base_url)) if self._online else settings.mode
        self._wandb: Any = wandb
        self._run: Any = None

    def begin(self, about: About, known: str | None) -> Place:
        """Go on with the run ``known``, or make one."""
        wandb = self._wandb
        if known and not self._online:
            time.sleep(
                1
            )  # offline folders are named by the second: two sittings of one must not write into one another
        self._run = run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "promptopt",
            id=known or secrets.token_hex(8),
            name=os.environ.get("WANDB_NAME") or about.name,
            notes=about.description or None,
            config=dict(about.parameters),
            resume="allow",
            reinit="create_new",  # the run that a user's own code may have active stays as it is
            settings=wandb.Settings(
                silent=True,
                console="off",
                save_code=False,
                disable_git=True,
                x_disable_meta=True,
                x_save_requirements=False,
                init_timeout=_SECONDS,
                finish_timeout=_SECONDS,
                finish_timeout_raises=True,
            ),
        )
        run.define_metric("trial")
        run.define_metric("*", step_metric="trial")
        last = run.summary.get("trial") if self._online else None
        return Place(run.id, None if last is None else int(last) + 1, str(run.url or ""))

    def trials(self, steps: Sequence[Step]) -> None:
        """A step a trial."""
        for step in steps:
            self._run.log({**step.metrics(), "candidate": step.candidate, "split": step.split})

    def end(self, outcome: Outcome) -> None:
        """The result, the candidates and the files."""
        wandb, run = self._wandb, self._run
        try:
            run.summary.update({**outcome.metrics, **outcome.facts})
            if outcome.why:
                run.summary["why"] = outcome.why
            if outcome.steps:
                columns, rows = outcome.table()
                run.log({"candidates": wandb.Table(columns=columns, data=rows)})
            if outcome.files:
                artifact = wandb.Artifact(f"promptopt-{run.id}", type="promptopt-run")
                for name, content in outcome.files.items():
                    with artifact.new_file(name, mode="wb") as file:
                        file.write(content)
                run.log_artifact(artifact)
        finally:
            run.finish(exit_code=_CODE[outcome.status])
