"""Make what a release holds, and try it: `make package`.

dist/ gets the sdist, the wheel, an SBOM (CycloneDX) of an installation of the wheel, and the SHA-256 of each.
It is filled when all is well: built twice to the same bytes, the second time from the sdist in another folder;
with whatever the repository holds in the sdist; with a page that an index can show; and with a wheel that
answers in an environment which has nothing but its own dependencies.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from packaging.metadata import Metadata
from selectolax.lexbor import LexborHTMLParser

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"

NOT_RELEASED = {".ci/run"}
"""What the repository holds and the sdist does not."""


class Failed(Exception):
    """A check that the release did not pass; the text says which and why."""


def run(
    *command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, umask: int = -1, text: str = ""
) -> str:
    """Give what a program writes on stdout. Raises `Failed` with all that it said."""
    environment = {**os.environ, **(env or {})}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        command,
        cwd=cwd or ROOT,
        env=environment,
        umask=umask,
        input=text,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        raise Failed(f"{' '.join(map(str, command))} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def some(names: Collection[str]) -> str:
    """The first ten of them by name, and how many more there are."""
    more = [f"{len(names) - 10} more"] if len(names) > 10 else []
    return ", ".join([*sorted(names)[:10], *more])


def build(tree: Path, into: Path, *which: str, umask: int = -1, **environment: str) -> dict[str, bytes]:
    """The sdist and the wheel of a tree, by name."""
    options = ["--no-isolation", "--outdir", str(into), *which]
    run(sys.executable, "-m", "build", *options, str(tree), cwd=into.parent, env=environment, umask=umask)
    return {path.name: path.read_bytes() for path in sorted(into.iterdir())}


def build_twice(folder: Path) -> tuple[Path, Path]:
    """The sdist and the wheel. Raises `Failed` where their bytes depend on place, user or time zone."""
    first = build(ROOT, folder / "first")
    (sdist,) = (folder / "first").glob("*.tar.gz")
    (wheel,) = (folder / "first").glob("*.whl")
    (folder / "unpacked").mkdir()
    run("tar", "-xf", sdist, "--no-same-owner", "-C", folder / "unpacked")  # tarfile's filters came with Python 3.11.4
    tree = folder / "unpacked" / sdist.name.removesuffix(".tar.gz")
    second = build(tree, folder / "second", "--sdist", "--wheel", umask=0o077, TZ="Asia/Kathmandu", PYTHONHASHSEED="1")
    if differing := [name for name in first.keys() | second.keys() if first.get(name) != second.get(name)]:
        raise Failed(f"not the same when built again from the sdist: {some(differing)}")
    return sdist, wheel


def check_contents(sdist: Path, wheel: Path) -> None:
    """Raises `Failed` where a file of the repository lacks, or the wheel holds what is not tolmach's."""
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as contents:
        installed = {name for name in contents.namelist() if ".dist-info/" not in name}
    if (ROOT / ".git").exists():
        held = set(run("git", "ls-files").split("\n")) - {""} - NOT_RELEASED
        if lacking := held - packed:
            raise Failed(f"not in the sdist: {some(lacking)}")
        if strays := packed - held - {"PKG-INFO"}:
            raise Failed(f"in the sdist, and not in the repository: {some(strays)}")
    if installed != {name.removeprefix("src/") for name in packed if name.startswith("src/")}:
        raise Failed("the wheel does not hold what stands in src/")


def check_metadata(sdist: Path, wheel: Path) -> str:
    """Give the version. Raises `Failed` for metadata that an index would refuse or not show."""
    with zipfile.ZipFile(wheel) as contents:
        (name,) = (name for name in contents.namelist() if name.endswith(".dist-info/METADATA"))
        text = contents.read(name)
    with tarfile.open(sdist) as archive:
        member = archive.extractfile(f"{sdist.name.removesuffix('.tar.gz')}/PKG-INFO")
        if member is None or member.read() != text:
            raise Failed("sdist and wheel have different metadata")
    try:
        metadata = Metadata.from_email(text, validate=True)
    except ExceptionGroup as errors:
        raise Failed(f"metadata that an index refuses: {some([str(error) for error in errors.exceptions])}") from errors
    check_page(metadata.description or "")
    return str(metadata.version)


def check_page(markdown: str) -> None:
    """Raises `Failed` for a page that an index does not show, or with a link that leads nowhere there."""
    html = run(sys.executable, "-m", "readme_renderer", "--format", "md", "/dev/stdin", text=markdown)
    page = LexborHTMLParser(html)
    if not page.css("h1"):
        raise Failed("the page of the index has no heading")
    targets = {node.attributes.get("href") or "" for node in page.css("a")}
    targets |= {node.attributes.get("src") or "" for node in page.css("img")}
    there = {f"#{node.attributes['id']}" for node in page.css("[id]")}
    if broken := [target for target in targets - there if not re.match(r"https?://", target)]:
        raise Failed(f"links of the page that lead nowhere on an index: {some(broken)}")


def constraints() -> str:
    """The versions of run.txt, so that what is tried is what is pinned."""
    pins = (ROOT / "requirements/run.txt").read_text()
    return "".join(f"{pin}\n" for pin in re.findall(r"^[\w.-]+==[^\s;]+", pins, re.M))


def try_wheel(wheel: Path, version: str, folder: Path) -> Path:
    """Install the wheel, with what it asks for, and have the demo's services answer. Gives its Python."""
    venv.EnvBuilder(symlinks=True).create(folder / "venv")
    programs = folder / "venv" / "bin"
    pinned = folder / "constraints.txt"
    pinned.write_text(constraints())
    pip: Sequence[str | Path] = (sys.executable, "-m", "pip", "--python", programs / "python")
    run(*pip, "--disable-pip-version-check", "install", "--constraint", pinned, wheel)
    run(*pip, "--disable-pip-version-check", "check")
    home = folder / "home"
    home.mkdir()
    env = {"HOME": str(home), "XDG_DATA_HOME": "", "XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": ""}
    told = run(programs / "python", "-m", "tolmach", "--version", cwd=home, env=env).split()
    if told != ["tolmach", version]:
        raise Failed(f"the wheel of {version} says that it is {' '.join(told)}")
    run(programs / "tolmach", "demo", "--once", "--port", "0", "--delay", "0", cwd=home, env=env)
    return programs / "python"


def write_sbom(python: Path, version: str, file: Path) -> None:
    """A CycloneDX document of all that is installed there, with tolmach as its subject. Raises `Failed`."""
    # The generator reads no version that is worked out by the build.
    project = re.sub(r"^dynamic = .*$", f'version = "{version}"', (ROOT / "pyproject.toml").read_text(), flags=re.M)
    subject = file.with_suffix(".toml")
    subject.write_text(project)
    options = ["--pyproject", str(subject), "--output-reproducible", "--output-file", str(file)]
    run(sys.executable, "-m", "cyclonedx_py", "environment", *options, str(python))


def package(folder: Path) -> list[Path]:
    """Whatever the release holds, in a temporary folder. Raises `Failed`."""
    say("Building sdist and wheel, twice")
    sdist, wheel = build_twice(folder)
    say("Checking what they hold, and the page of the index")
    check_contents(sdist, wheel)
    version = check_metadata(sdist, wheel)
    say("Installing the wheel in an environment of its own, and asking the demo's services")
    python = try_wheel(wheel, version, folder)
    sbom = folder / f"tolmach-{version}.cdx.json"
    write_sbom(python, version, sbom)
    files = [sdist, wheel, sbom]
    sums = folder / "SHA256SUMS"
    sums.write_text("".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files))
    return [*files, sums]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        try:
            files = package(Path(folder))
        except Failed as failure:
            say(f"Nothing was packaged: {failure}")
            return 1
        shutil.rmtree(DIST, ignore_errors=True)
        DIST.mkdir()
        for file in files:
            shutil.copyfile(file, DIST / file.name)
            print(DIST / file.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
