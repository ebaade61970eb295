"""The container's files name what exists; an image is built by nobody here."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import yaml
from click import Command, Context, Group

from at2_rag.cli.group import main
from at2_rag.server.settings import ServerSettings

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions with their arguments, continued lines joined."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and line[0] != "#"]
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in lines)]


def resolved(words: list[str]) -> Command:
    command: Any = main
    for word in words:
        command = command.get_command(Context(command), word)
        assert command is not None, words
        if not isinstance(command, Group):
            break
    resolved_command: Command = command
    return resolved_command


def test_the_dockerfile_copies_what_is_there_and_runs_without_rights() -> None:
    steps = instructions()
    for name, rest in steps:
        if name == "COPY" and "--from" not in rest:
            *sources, _ = rest.split()
            assert all((ROOT / source).exists() for source in sources), rest
    last_stage = steps[max(i for i, (name, _) in enumerate(steps) if name == "FROM") :]
    users = [rest for name, rest in last_stage if name == "USER"]
    assert users and users[-1] not in ("root", "0")
    assert {"HEALTHCHECK", "ENTRYPOINT", "VOLUME"} <= {name for name, _ in last_stage}
    images = [rest.split()[0] for name, rest in steps if name == "FROM"]
    assert all(re.search(r":\d", image) for image in images), "each has a version"


def test_its_commands_and_variables_are_at2_rags() -> None:
    text = " ".join(rest for _, rest in instructions())
    called = re.findall(r"(?<![\w/-])at2-rag ([a-z]+ [a-z]+) ", text)
    assert called == ["models pull"]
    assert resolved(called[0].split()).name == "pull"
    serve = resolved(["serve"])
    flags = {flag.lstrip("-").replace("-", "_") for each in serve.params for flag in each.opts}
    variables = {name.lower() for name in re.findall(r"\bAT2_RAG_([A-Z_]+)=", text)}
    assert variables - {"cache"} <= flags


def test_compose_waits_for_the_drain_and_prometheus_finds_the_server() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    service = compose["services"]["at2-rag"]
    dockerfile = DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]
    assert dockerfile.resolve() == DEPLOY / "Dockerfile"
    assert float(service["stop_grace_period"].rstrip("s")) > ServerSettings().drain_seconds
    port = next(each.default for each in resolved(["serve"]).params if each.name == "port")
    assert service["ports"] == [f"{port}:{port}"]
    prometheus = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))
    [job] = prometheus["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"at2-rag:{port}"]}]
    options = shlex.join(service["command"])
    assert "--chunk-cache" in options
