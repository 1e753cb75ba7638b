"""What all tests share: the data folder, and models and plugins that are loaded once."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest

# A shared machine may stop for a moment in the middle of an example.
hypothesis.settings.register_profile(
    "shared machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("shared machine")

#: An emulated processor convolves several hundred times slower: what loads the vision model, starts processes
#: that do, or plans and solves for seconds, is left out there.
HEAVY_FIXTURES = {"vision", "language", "nuclei_bytes", "nuclei_frame", "data_folder"}
HEAVY_PLACES = (
    "benchmarks",
    "demos",
    "engines",
    "sage_edge/commands/test_calibration.py",
    "sage_edge/commands/test_doctor.py",
    "sage_edge/commands/test_evaluate.py",
    "sage_edge/commands/test_jetson_report.py",
    "sage_edge/commands/test_telemetry.py",
    "sage_edge/control",
    "sage_edge/plugins",
    "sage_edge/service/test_fuzz.py",
    "sage_edge/service/test_process.py",
    "sage_edge/test_cli.py",
    "sage_edge/test_evaluation.py",
    "test_benchmarks.py",
    "test_documents.py",
    "test_jetson_setup.py",
)


def pytest_collection_modifyitems(items):
    """Mark what `make arm64-test` leaves out."""
    here = Path(__file__).parent
    for item in items:
        place = item.path.relative_to(here).as_posix()
        is_vision = HEAVY_FIXTURES & set(getattr(item, "fixturenames", ())) or "[vision" in item.name
        if is_vision or place.startswith(HEAVY_PLACES):
            item.add_marker(pytest.mark.heavy)


def pytest_addoption(parser):
    parser.addoption(
        "--data", type=Path, default=None, help="folder of labelled data sets (nuclei_dsb2018/ …)"
    )


@pytest.fixture(scope="session")
def data_folder(request):
    """The labelled data sets, which do not ship."""
    folder = request.config.getoption("--data")
    if folder is None or not folder.is_dir():
        pytest.skip("needs the labelled data sets: pass --data=DIR")
    return folder


@pytest.fixture(scope="session")
def vision():
    """The vision plugin with the model that ships, on one thread."""
    from sage_edge import Settings, open_plugin

    return open_plugin("vision", Settings(threads=1))


@pytest.fixture(scope="session")
def language():
    """The language plugin with the reader that ships, on one thread."""
    from sage_edge import Settings, open_plugin

    return open_plugin("language", Settings(plugins=("language",), threads=1))


@pytest.fixture(scope="session")
def nuclei_bytes():
    """A real frame as a WebP file's bytes."""
    return (Path(__file__).parents[1] / "demos" / "frames" / "nuclei.webp").read_bytes()


@pytest.fixture(scope="session")
def nuclei_frame(nuclei_bytes):
    """The same, decoded: uint8 [256, 256, 3]."""
    from sage_edge.frames import decode_image

    return decode_image(nuclei_bytes, 1 << 20)
