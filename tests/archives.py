"""Whether what `make dist` built is whole: `python -m tests.archives DIRECTORY`, with one sdist and one wheel in it.

The wheel holds the package and its licence and nothing else, the sdist all that the README speaks of; the page that an
index makes of them has no link that leads nowhere; and the wheel, installed without extras into a fresh environment,
works.
"""

from __future__ import annotations

import email
import re
import socket
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import simopen

IN_WHEEL = {"simopen/__init__.py", "simopen/py.typed", "simopen/lab/__init__.py"}
IN_SDIST = {
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "benchmarks/__main__.py",
    "benchmarks/results/matrix.svg",
    "docs/conf.py",
    "docs/index.md",
    "docs/measured.md",
    "examples/keep_alive.py",
    "examples/love.py",
    "pyproject.toml",
    "simopen/py.typed",
    "tests/conftest.py",
}
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def check_wheel(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        info = f"simopen-{simopen.__version__}.dist-info"
        metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
    assert names >= IN_WHEEL | {f"{info}/licenses/LICENSE", f"{info}/entry_points.txt"}, IN_WHEEL - names
    strangers = {name for name in names if not name.startswith(("simopen/", f"{info}/"))}
    assert not strangers, strangers
    assert metadata["License-Expression"] == "MIT"
    assert all(" https://" in url for url in metadata.get_all("Project-URL", [])), "project URLs are absolute"
    assert metadata.get_all("Project-URL"), "an index page has links"
    check_page(metadata.get_payload())


def check_page(text: object) -> None:
    assert isinstance(text, str)
    assert text.lstrip().startswith("# simopen")
    relative = [target for target in LINK.findall(text) if not target.startswith("https://")]
    assert not relative, f"an index page has no {relative}"


def check_sdist(path: Path) -> None:
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= IN_SDIST, IN_SDIST - names
    strangers = {
        name for name in names if "__pycache__" in name or name.startswith((".venv", ".git/", "build/", "dist/"))
    }
    assert not strangers, strangers


def check_installed(wheel: Path) -> None:
    """Install it as a user would, without extras, and use it away from the checkout."""
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([sys.executable, "-m", "venv", directory], check=True)
        binaries = Path(directory, "bin")
        subprocess.run([binaries / "python", "-m", "pip", "install", "--quiet", wheel.resolve()], check=True)

        def run(*command: str, typed: str = "") -> str:
            done = subprocess.run(
                [binaries / command[0], *command[1:]],
                input=typed,
                cwd=directory,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, (command, done.stdout, done.stderr)
            return done.stdout

        assert run("simopen", "--version").split()[-1] == simopen.__version__
        assert run("simopen", "self", str(free_port()), typed="I love me.\n") == "I love me.\n"
        assert "I love you." in run("simopen", "demo")
        assert directory in run(
            "python", "-c", "import simopen; simopen.connect, simopen.discover; print(simopen.__file__)"
        )


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


def main(directory: str) -> None:
    (wheel,) = Path(directory).glob("*.whl")
    (sdist,) = Path(directory).glob("*.tar.gz")
    check_wheel(wheel)
    check_sdist(sdist)
    check_installed(wheel)
    print(f"{wheel.name} and {sdist.name} are whole, and the wheel works without extras")


if __name__ == "__main__":
    main(*sys.argv[1:])
