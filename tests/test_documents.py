"""The documents tell the truth: their commands run, their links lead somewhere, their lists are complete."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from PIL import Image

from sage_edge import errors as error_tree
from sage_edge import load_settings
from sage_edge.config import setting_fields
from sage_edge.irp.plugin import HALT_KEYS
from sage_edge.plugins import CLASS_KEY, find_class, make_plugins
from sage_edge.service import answers, quality, refine, scenes, status, telemetry

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("engines/**/*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")
#: A link into a page; a section named in code or prose; one named by its number, which leads nowhere.
LINK = re.compile(r"\]\((?!http)([^)#\s]*)#([\w-]+)\)")
NAMED = re.compile(r"(?<![\w/])(docs/[\w/]+\.md)#([\w-]+)")
BY_NUMBER = re.compile(r"IRP v[\d.]+(?: \([\d-]+\))?, section \d+|sections? \d+ of (?:docs/)?IRP_PROTOCOL")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def readme_commands(program):
    """The README's shell commands that start with a program, without their comments."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(program)]


@pytest.fixture(scope="module")
def served():
    """The service that `make run` starts, on a free port."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "demos/quickstart.py", "--port", str(port), "--keep-serving"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Ctrl-C" in line:
            break
    assert process.poll() is None, "".join(lines)
    yield port
    process.terminate()  # a shell may have told its background jobs to ignore SIGINT
    assert process.wait(30) == 0
    process.stdout.close()


def test_make_demo_prints_the_result_and_exits_with_0(tmp_path):
    [run] = readme_commands("make run")
    command = [*shlex.split(run.replace("run", "demo")), f"PORT={free_port()}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=600, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("steps", "energy", "trust", "halt", "ms", "mask.png", "/v1/telemetry", "/metrics"):
        assert word in done.stdout


def test_a_taken_port_is_named_and_ends_the_quickstart_with_2():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "demos/quickstart.py", "--port", str(port)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert f"port {port} is in use" in done.stderr


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("command", readme_commands("curl"))
def test_the_readmes_requests_are_answered(served, command, tmp_path):
    command = command.replace("127.0.0.1:8080", f"127.0.0.1:{served}").replace(
        "mask.png", str(tmp_path / "m.png")
    )
    done = subprocess.run(
        [*shlex.split(command), "--fail-with-body"], cwd=ROOT, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout
    if "image/png" in command:
        assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")
    elif "event-stream" in command:
        assert b"event: step" in done.stdout
        assert b"event: result" in done.stdout
    elif "telemetry" in command:
        assert len([json.loads(line) for line in done.stdout.splitlines()]) == 3
    else:
        reply = json.loads(done.stdout)
        assert all(result["trust"] > 0 for result in reply.get("results", [reply]))


@pytest.mark.parametrize("command", readme_commands(".venv/bin/sage-edge"))
def test_the_readmes_commands_run(command, tmp_path):
    arguments = shlex.split(command)[1:]
    if arguments[0] == "refine":
        arguments += ["--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "sage_edge", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def python_blocks():
    return re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_readmes_python_prints_what_it_shows():
    code, _ = python_blocks()
    shown = README.partition(code)[2].partition("```text\n")[2].partition("```")[0]
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == shown


def test_the_readmes_plugin_is_served(tmp_path):
    _, plugin = python_blocks()
    name, code = re.match(r"# (\w+\.py)\n(.*)", plugin, re.DOTALL).groups()
    (tmp_path / name).write_text(code)
    checked, served = ([sys.executable, "-m", *rest] for rest in plugin_commands())
    said = subprocess.run(checked, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    assert {line.split()[1] for line in said.splitlines() if line.startswith("FAIL")} == {
        "docstring",
        "invariants",
    }
    port = free_port()
    flags = ["--port", str(port), "--threads", "1", "--telemetry-dir", ""]
    process = subprocess.Popen([*served, *flags], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    log = list(itertools.takewhile(lambda line: "serving url" not in line, process.stderr))
    assert process.poll() is None, "".join(log)
    frame = (ROOT / "demos" / "frames" / "nuclei.webp").read_bytes()
    accepts = {"Accept": "image/png"}
    reply = httpx.post(f"http://127.0.0.1:{port}/v1/refine/blur", content=frame, headers=accepts, timeout=60)
    process.terminate()
    assert process.wait(30) == 0
    process.stderr.close()
    assert reply.headers["Sage-Halt-Reason"] == "slope<eps"
    with Image.open(io.BytesIO(reply.content)) as blurred:
        assert (blurred.size, blurred.mode) == ((256, 256), "L")


def plugin_commands():
    """The README's commands about the plugin that it shows, as arguments of the interpreter."""
    return [["sage_edge", *shlex.split(line)[1:]] for line in readme_commands("sage-edge")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_paths_lead_somewhere(document):
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_readmes_figures_are_those_of_the_page_that_has_them_all():
    rows = re.compile(r"^\| .* \| `python -m .* \|$|^\| .* \| `sage-edge .* \|$", re.MULTILINE)
    chosen = rows.findall(README)
    assert len(chosen) >= 6
    assert set(chosen) < set(rows.findall((ROOT / "docs" / "MEASURED.md").read_text(encoding="utf-8")))


def files_of(*suffixes):
    """Paths and texts of the files of these kinds that git knows."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / name for name in listed.splitlines()]
    return [(path, path.read_text(encoding="utf-8")) for path in paths if path.suffix in suffixes]


def anchors_of(document):
    """What a link may name in a document: its headings, as GitHub writes them."""
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_reference_to_a_section_leads_to_one():
    found = 0
    for path, text in files_of(".py", ".pyi", ".h", ".cpp", ".cu", ".cuh", ".md"):
        named = [(ROOT / name, anchor) for name, anchor in NAMED.findall(text)]
        if path.suffix == ".md":
            named += [(path.parent / (name or path.name), anchor) for name, anchor in LINK.findall(text)]
        for document, anchor in named:
            assert document.exists(), f"{path}: {document}"
            assert anchor in anchors_of(document), f"{path}: {document.name}#{anchor}"
            found += 1
    assert found >= 20


def test_no_section_of_the_protocol_is_named_by_its_number():
    for path, text in files_of(".py", ".pyi", ".h", ".cpp", ".cu", ".cuh", ".md"):
        plain = re.sub(r"\s*\n\s*(?:///?|#:?)?\s*", " ", text)  # a comment may wrap in the middle
        assert not (by_number := BY_NUMBER.search(plain)), f"{path}: {by_number[0]}"


def test_the_map_from_prose_to_code_names_what_exists():
    paths = re.findall(r"`((?:sage_edge|csrc|engines|schemas|demos|benchmarks|docs)[\w/.]*)`", README)
    assert len(paths) >= 12
    for path in paths:
        assert (ROOT / path).exists(), path


def test_every_setting_is_documented_with_its_default():
    text = (ROOT / "docs" / "SETTINGS.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", text, re.MULTILINE))
    assert set(rows) == {entry.name for entry in setting_fields()}
    for entry in setting_fields():
        default = ",".join(entry.default) if isinstance(entry.default, tuple) else entry.default
        assert rows[entry.name] == f"`{default}`", entry.name


def test_every_key_of_a_plugin_that_ships_is_documented():
    text = (ROOT / "docs" / "SETTINGS.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\w ]+) \| `(\w+)` \|", text, re.MULTILINE)
    expected = {("every one", key) for key in (CLASS_KEY, *HALT_KEYS)}
    for name in ("vision", "control", "language"):
        expected |= {(name, key) for key in find_class(name).config_keys}
    assert set(rows) == expected


def test_the_tables_of_plugins_on_the_page_of_settings_are_two_models_of_vision(tmp_path):
    text = (ROOT / "docs" / "SETTINGS.md").read_text(encoding="utf-8")
    file = tmp_path / "sage.toml"
    file.write_text(re.search(r"```toml\n(.*?)```", text, re.DOTALL)[1])
    vision, nuclei = make_plugins(load_settings({}, {}, file)).values()
    assert (vision.name, vision.config["model"]) == ("vision", "camvid")
    assert (nuclei.name, nuclei.halting.max_steps) == ("nuclei", 4)
    assert type(vision) is type(nuclei)
    name, value = re.search(r"`(SAGE_PLUGINS__\w+)=(\w+)`", text).groups()
    [flag] = re.findall(r"`--set (vision[^`]+)`", text)
    for settings in (load_settings({}, {name: value}), load_settings({"set": [flag]}, {})):
        assert settings.plugin_config == {"vision": {"model": "camvid"}}


def test_every_error_code_and_route_is_documented():
    text = (ROOT / "docs" / "HTTP_API.md").read_text(encoding="utf-8")
    classes = [c for c in vars(error_tree).values() if isinstance(c, type) and issubclass(c, Exception)]
    for cls in classes:
        assert f"`{cls.code}`" in text, cls.code
    names = re.sub(r"\{\w+\}", "{name}", text)  # the page may name a parameter as it is meant
    for module in (answers, quality, refine, scenes, status, telemetry):
        for route in module.router.routes:
            for method in route.methods:
                assert f"`{method} {route.path}" in names or method == "HEAD", route.path


def test_the_repository_names_no_machine():
    words = re.compile(r"/home/\w|/root/\w|/work/\w|pythonhosted|registry\.npmjs|deb\.debian")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".json", ".cpp", ".h", ".txt", "") and path != Path(
            __file__
        ):
            assert not words.search(path.read_text(encoding="utf-8", errors="replace")), name
