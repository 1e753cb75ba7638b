"""JETSON_SETUP.md: what can run on a plain machine runs, and what it quotes is said."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sage_edge.service.conftest import Service

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "JETSON_SETUP.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]


@pytest.fixture(scope="module")
def port(vision):
    from sage_edge import Settings

    with Service({"vision": vision}, Settings(slots=2, threads=1, telemetry_dir="")) as running:
        yield running.port


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_runs(command, port, tmp_path):
    program, *arguments = shlex.split(command.replace("127.0.0.1:8080", f"127.0.0.1:{port}"))
    started = {"sage-edge": [sys.executable, "-m", "sage_edge"], "python": [sys.executable]}.get(
        program, [program]
    )
    if program == "python":
        arguments += ["--url", f"http://127.0.0.1:{port}"]
    if program == "curl":
        arguments += ["--fail", "--output", str(tmp_path / "out")]
    done = subprocess.run(
        [*started, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout or (tmp_path / "out").stat().st_size


def test_the_page_has_commands_and_each_is_run():
    assert {shlex.split(command)[0] for command in COMMANDS} == {"sage-edge", "curl", "python"}


def quoted_messages():
    table = PAGE[PAGE.index("| message |") :]
    return re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)


@pytest.mark.parametrize("message", quoted_messages())
def test_a_quoted_message_is_one_that_the_code_says(message):
    if message == "exec format error":
        return  # said by the container engine
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "sage_edge").rglob("*.py"))
    assert message in re.sub(r'"\n\s+f?"', "", code)


def test_the_unit_restarts_what_may_help_and_starts_what_exists():
    unit = (ROOT / "deploy" / "sage-edge.service").read_text(encoding="utf-8")
    assert "RestartPreventExitStatus=2" in unit
    assert "sage-edge serve --config" in unit
    for name in re.findall(r"(SAGE_\w+)=", unit):
        from sage_edge.config import Settings

        assert name.removeprefix("SAGE_").lower() in Settings.__dataclass_fields__


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_the_unit(tmp_path):
    unit = (ROOT / "deploy" / "sage-edge.service").read_text(encoding="utf-8")
    copy = tmp_path / "sage-edge.service"
    copy.write_text(unit.replace("/opt/sage-edge/.venv/bin/sage-edge", "/bin/true"), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
    assert "sage-edge.service:" not in done.stderr
