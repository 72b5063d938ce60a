"""Runs told to MLflow: its parameters, a step a trial, the candidates as a table, the result and the run's files.

Where to is MLflow's own affair: ``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME`` (default: ``promptopt``) or
``MLFLOW_EXPERIMENT_ID``. Nothing here touches the run that a user's own code may have active.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

from promptopt.errors import ConfigError
from promptopt.integrations.tracking import About, Outcome, Place, Step, plain_url

_LONGEST = 500  # characters of a parameter: what servers of any age take; the whole is in run.json
_LONGEST_TAG = 5000
_AT_ONCE = 100  # parameters or tags a call
_METRICS_AT_ONCE = 1000
_STATUS = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


class MlflowTracker:
    """A run of MLflow for a run of promptopt.

    Raises:
        ConfigError: MLflow is not there, or lacks what its store needs.
    """

    def __init__(self) -> None:
        try:
            import mlflow
        except ImportError as error:
            raise ConfigError(
                f'The tracker mlflow needs MLflow ({error}). Install it: pip install "promptopt[mlflow]"'
            ) from error
        uri = mlflow.get_tracking_uri()
        _check_store(uri)
        self.where = plain_url(uri)
        self._client: Any = None
        self._id = ""
        self._steps = 0

    def begin(self, about: About, known: str | None) -> Place:
        """Find the run ``known``, or make one."""
        from mlflow import MlflowClient
        from mlflow.entities import Param

        with _quiet():
            self._client = MlflowClient()
        client = self._client
        run = None if known is None else self._found(known)
        if run is None:
            tags = {"mlflow.source.name": "promptopt", "promptopt.run": about.name}
            if about.description:
                tags["mlflow.note.content"] = about.description[:_LONGEST_TAG]
            run = client.create_run(self._experiment(), run_name=about.name, tags=tags)
        elif run.info.status != "RUNNING":
            client.update_run(run.info.run_id, status="RUNNING")
        self._id = run.info.run_id
        if not run.data.params:
            params = [Param(name[:250], _cut(value, _LONGEST)) for name, value in about.flat().items()]
            for start in range(0, len(params), _AT_ONCE):
                client.log_batch(self._id, params=params[start : start + _AT_ONCE])
        self._steps = int(run.data.metrics["trial"]) + 1 if "trial" in run.data.metrics else 0
        http = self.where.startswith(("http://", "https://"))
        url = f"{self.where.rstrip('/')}/#/experiments/{run.info.experiment_id}/runs/{self._id}" if http else ""
        return Place(self._id, self._steps, url)

    def trials(self, steps: Sequence[Step]) -> None:
        """A step a trial."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        waiting: list[Any] = []
        for step in steps:
            metrics = [Metric(name, value, now, step.number) for name, value in step.metrics().items()]
            if len(waiting) + len(metrics) > _METRICS_AT_ONCE:  # a trial's numbers come together or not at all
                self._client.log_batch(self._id, metrics=waiting)
                waiting = []
            waiting += metrics
        self._client.log_batch(self._id, metrics=waiting)
        self._steps = steps[-1].number + 1

    def end(self, outcome: Outcome) -> None:
        """The result, the candidates and the files."""
        from mlflow.entities import Metric, RunTag

        client, now = self._client, int(time.time() * 1000)
        facts = {**outcome.facts, **({"why": outcome.why} if outcome.why else {})}
        tags = [RunTag(f"promptopt.{name}", _cut(value, _LONGEST_TAG)) for name, value in facts.items()]
        metrics = [Metric(name, value, now, self._steps) for name, value in outcome.metrics.items()]
        try:
            client.log_batch(self._id, metrics=metrics, tags=tags)
            for name, content in outcome.files.items():
                client.log_text(self._id, content.decode(errors="replace"), name)
            if outcome.steps:
                columns, rows = outcome.table()
                client.log_text(self._id, json.dumps({"columns": columns, "data": rows}), "candidates.json")
                # By this MLflow knows that the file is a table, and shows it as one.
                table = json.dumps([{"path": "candidates.json", "type": "table"}])
                client.set_tag(self._id, "mlflow.loggedArtifacts", table)
        finally:
            with _silent():
                client.set_terminated(self._id, _STATUS[outcome.status])

    def _found(self, known: str) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(known)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return run if run.info.lifecycle_stage == "active" else None

    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        given = os.environ.get("MLFLOW_EXPERIMENT_ID")
        if given:
            return given
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "promptopt"
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another run was faster
                    raise
                found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id)


def _check_store(uri: str) -> None:
    """Refuse before anything is spent a store that MLflow will not open here; servers are asked later."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    scheme = uri.partition(":")[0].partition("+")[0] if ":" in uri else ""
    missing = [name for name in ("sqlalchemy", "alembic") if importlib.util.find_spec(name) is None]
    if scheme in _DATABASES and missing:
        raise ConfigError(
            f"MLflow's store {plain_url(uri)} needs {' and '.join(missing)}. Install them: pip install "
            f'"promptopt[mlflow]" {" ".join(missing)}. Or name a server: MLFLOW_TRACKING_URI=http://…'
        )
    if scheme in ("", "file"):
        try:
            MlflowClient()
        except MlflowException as error:
            raise ConfigError(f"MLflow refuses its store {plain_url(uri)}: {error}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """MLflow tells of each table that it makes in a new database."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """MLflow prints a link on standard output, where the one document of ``--json`` goes."""
    name = "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"
    had = os.environ.get(name)
    os.environ[name] = "true"
    try:
        yield
    finally:
        if had is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = had


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
