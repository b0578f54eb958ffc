"""What makes a release, and what it would not let through."""

import io
import re
import subprocess
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager
from packaging.requirements import Requirement

import tolmach
from tests.scripts import ROOT, script

# The page of a package index


@pytest.fixture(scope="module")
def metadata() -> ProjectMetadata:  # type: ignore[type-arg]
    """As the build works it out."""
    return ProjectMetadata(str(ROOT), PluginManager())


def test_the_version_is_that_of_the_package(metadata: ProjectMetadata) -> None:  # type: ignore[type-arg]
    assert metadata.version == tolmach.__version__
    assert metadata.core.name == "tolmach"


def test_the_page_has_no_link_to_a_file(metadata: ProjectMetadata) -> None:  # type: ignore[type-arg]
    page = metadata.core.readme
    assert metadata.core.readme_content_type == "text/markdown"
    assert page.startswith("# tolmach\n")
    text = re.sub(r"```.*?```", "", page, flags=re.S)
    assert re.findall(r"\]\((?!https?://)[^)]*\)", text) == []
    named = re.findall(r"\(`([\w./-]+\.(?:md|toml))`\)", text)
    assert "docs/gateway.md" in named
    assert [file for file in named if not (ROOT / file).is_file()] == []


def test_links_become_the_names_of_their_files() -> None:
    readme = """# x

See [the docs](docs/x.md#place), [docs/y.md](docs/y.md), [below](#below) and [elsewhere](https://x.example/a.md).

## Below

```md
[the docs](docs/x.md)
```
"""
    text = script("release/index_page.py").index_page(readme)
    assert "See the docs (`docs/x.md`), `docs/y.md`, [below](#below) and [elsewhere](https://x.example/a.md).\n" in text
    assert "```md\n[the docs](docs/x.md)\n```" in text
    assert text.index("source distribution") < text.index("## Below")


@pytest.mark.parametrize("file", ["README.md", "README.ru.md", "docs/release.md"])
def test_packages_are_named_by_this_version(file: str) -> None:
    named = re.findall(r"\btolmach-(\d[\w.]*?)(?=-py3|\.tar|\.cdx|[/\s])", (ROOT / file).read_text())
    assert len(named) >= 2
    assert set(named) == {tolmach.__version__}


# The checks


@pytest.fixture
def package(tmp_path: Path) -> ModuleType:
    module = script("release/package.py")
    module.__dict__.update(ROOT=tmp_path / "project", DIST=tmp_path / "project/dist")
    (tmp_path / "project").mkdir()
    return module


@pytest.mark.parametrize(
    ("markdown", "broken"),
    [
        ("# x\n\n[a](docs/a.md) [b](https://x.example/b)", "docs/a.md"),
        ("# x\n\n![a](a.png)", "a.png"),
        ("# x\n\n[a](#nowhere)", "#user-content-nowhere"),
    ],
)
def test_a_link_that_leads_nowhere_on_an_index_is_named(package: ModuleType, markdown: str, broken: str) -> None:
    with pytest.raises(package.Failed, match=f"nowhere on an index: {broken}$"):
        package.check_page(markdown)


def test_a_page_that_renders_is_taken(package: ModuleType) -> None:
    package.check_page("# x\n\n## y\n\n[b](https://x.example/b), [above](#x)\n\n| a | b |\n|---|---|\n| 1 | 2 |\n")
    with pytest.raises(package.Failed, match="no heading"):
        package.check_page("x")


def sdist(file: Path, files: Mapping[str, str]) -> Path:
    with tarfile.open(file, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"{file.name.removesuffix('.tar.gz')}/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return file


def wheel(file: Path, files: Mapping[str, str]) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return file


@pytest.fixture
def repository(package: ModuleType) -> Path:
    """Holds src/module, docs/page and left."""
    root: Path = package.ROOT
    for name in ("src/module", "docs/page", "left"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("")
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *command], cwd=root, check=True)
    return root


def test_a_file_that_the_sdist_lacks_is_named(package: ModuleType, repository: Path, tmp_path: Path) -> None:
    whole = wheel(tmp_path / "x.whl", {"module": "", "x.dist-info/METADATA": ""})
    files = {"src/module": "", "docs/page": "", "PKG-INFO": ""}
    with pytest.raises(package.Failed, match=r"not in the sdist: left$"):
        package.check_contents(sdist(tmp_path / "x.tar.gz", files), whole)
    files["left"] = ""
    with pytest.raises(package.Failed, match=r"not in the repository: stray$"):
        package.check_contents(sdist(tmp_path / "x.tar.gz", {**files, "stray": ""}), whole)
    package.check_contents(sdist(tmp_path / "x.tar.gz", files), whole)
    with pytest.raises(package.Failed, match="the wheel"):
        package.check_contents(tmp_path / "x.tar.gz", wheel(tmp_path / "x.whl", {"module": "", "docs/page": ""}))


def test_another_build_with_other_bytes_is_refused(
    package: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["same", "same", "other"]

    def build(tree: Path, into: Path, *which: str, **settings: object) -> dict[str, bytes]:
        into.mkdir()
        sdist(into / "x-1.tar.gz", {"file": ""})
        wheel(into / "x-1.whl", {"file": texts.pop(0)})
        return {"x-1.whl": (into / "x-1.whl").read_bytes()}

    monkeypatch.setattr(package, "build", build)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    assert package.build_twice(tmp_path / "one")[1].name == "x-1.whl"
    texts.insert(0, "same")
    with pytest.raises(package.Failed, match=r"not the same when built again from the sdist: x-1\.whl$"):
        package.build_twice(tmp_path / "two")


def test_metadata_that_an_index_refuses_is_told(package: ModuleType, tmp_path: Path) -> None:
    def check(text: str, other: str | None = None) -> str:
        sdist(tmp_path / "x.tar.gz", {"PKG-INFO": text if other is None else other})
        made = wheel(tmp_path / "x.whl", {"x.dist-info/METADATA": text})
        return str(package.check_metadata(tmp_path / "x.tar.gz", made))

    good = "Metadata-Version: 2.4\nName: x\nVersion: 1.0\nDescription-Content-Type: text/markdown\n\n# x\n"
    assert check(good) == "1.0"
    with pytest.raises(package.Failed, match="different metadata"):
        check(good, good + "more\n")
    with pytest.raises(package.Failed, match=r"an index refuses: .*of today"):
        check(good.replace("Version: 1.0", "Version: of today"))


def test_the_wheel_is_tried_with_what_is_pinned() -> None:
    lines = script("release/package.py").constraints().splitlines()
    assert "wreq" in {Requirement(line).name for line in lines}
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)


def test_what_a_program_says_stands_in_the_failure(package: ModuleType) -> None:
    with pytest.raises(package.Failed, match=r"git nonsense ended with 1\n.*is not a git command"):
        package.run("git", "nonsense")


def test_nothing_is_left_in_dist_when_a_check_fails(
    package: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(folder: Path) -> list[Path]:
        raise package.Failed("the reason")

    monkeypatch.setattr(package, "package", failing)
    package.DIST.mkdir()
    (package.DIST / "of-before").touch()
    assert package.main() == 1
    assert [file.name for file in package.DIST.iterdir()] == ["of-before"]
    assert "Nothing was packaged: the reason" in capsys.readouterr().err
