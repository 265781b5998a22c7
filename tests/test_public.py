"""The public names hold, arrive lazily, and the README tells of what there is."""

import importlib
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import medisyn
from medisyn import cli

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
VERBS = typer.main.get_command(cli.app).commands


def loaded_after(statement: str, environment: dict[str, str]) -> set[str]:
    """The packages in memory once a fresh Python has run a statement."""
    code = f"import sys\n{statement}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.splitlines()[-1].split())


def test_the_public_names_are_these():
    assert medisyn.__all__ == ["Record", "Synthesizer", "describe", "load", "understand"]
    assert set(medisyn.HOMES) == set(medisyn.__all__) - {"load"}


@pytest.mark.parametrize("name", medisyn.__all__)
def test_every_public_name_is_there(name):
    assert callable(getattr(medisyn, name))
    if name in medisyn.HOMES:
        assert getattr(medisyn, name) is getattr(importlib.import_module(medisyn.HOMES[name]), name)


def test_a_name_of_nobody_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        medisyn.lode  # noqa: B018


def test_import_brings_neither_torch_nor_numpy(environment):
    assert not {"torch", "numpy", "PIL"} & loaded_after("import medisyn", environment)


def test_help_brings_no_torch(environment):
    loaded = loaded_after("from medisyn import cli\ntry: cli.app(['--help'])\nexcept SystemExit: pass", environment)
    assert "typer" in loaded
    assert not {"torch", "numpy"} & loaded


def test_understanding_needs_no_torch(environment):
    assert "torch" not in loaded_after("import medisyn; assert medisyn.understand('CXR').image_type == 'chest_xray'", environment)


# ---- documentation ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_shows_an_example_of_itself(verb):
    assert re.search(rf"Example: medisyn {verb}\b", VERBS[verb].help)


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_says_what_it_is_for(verb):
    silent = [p.name for p in VERBS[verb].params if not getattr(p, "help", None) and p.name != "help" and p.name != "prompt"]
    assert silent == []


def code_of(text: str) -> str:
    """The code of a Markdown text, blocks and spans."""
    blocks = re.findall(r"```.*?\n(.*?)```", text, re.DOTALL)
    return "\n".join(blocks + re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)))


def tree_of(text: str) -> list[Path]:
    """The paths that a README's trees name: ```text blocks that begin with a folder or are drawn with branches."""
    paths = []
    for block in re.findall(r"```text\n(.*?)```", text, re.DOTALL):
        lines = [line for line in block.splitlines() if line.strip()]
        if not lines or not (re.match(r"[\w.-]+/(\s|$)", lines[0]) or "── " in block):
            continue
        parents: list[tuple[int, Path]] = []
        for line in lines:
            bare = re.sub("[│├└─]", " ", line)
            depth = len(bare) - len(bare.lstrip())
            parents = [(at, folder) for at, folder in parents if at < depth]
            home = parents[-1][1] if parents else Path()
            for name in itertools.takewhile(re.compile(r"[\w.-]+/|[\w-]+\.\w+").fullmatch, bare.split()):
                paths.append(home / name)
                if name.endswith("/"):
                    parents.append((depth, home / name))
    return paths


DRAWN = """```text
medisyn/
├── cli.py      the verbs
├── data/       on disk
│   └── records.py images.py   # two
└── flow.py
```"""
INDENTED = """```text
medisyn/          the package
  cli.py          the verbs
  data/
    records.py
docs/  tests/
```"""


@pytest.mark.parametrize(("text", "named"), [
    (DRAWN, "medisyn medisyn/cli.py medisyn/data medisyn/data/records.py medisyn/data/images.py medisyn/flow.py"),
    (INDENTED, "medisyn medisyn/cli.py medisyn/data medisyn/data/records.py docs tests"), ("```text\nmedisyn check x\n```", "")])
def test_the_reader_of_trees_reads_trees(text, named):
    assert [path.as_posix() for path in tree_of(text)] == named.split()


def test_every_verb_that_the_readme_names_is_there():
    named = set(re.findall(r"(?:^|[\s/$(])medisyn ([a-z]\w+)\b", code_of(README.read_text(encoding="utf-8")), re.MULTILINE))
    assert named
    assert named <= set(VERBS)


def test_the_readme_s_tree_is_the_real_tree():
    drawn = tree_of(README.read_text(encoding="utf-8"))
    assert [path.as_posix() for path in drawn if not (ROOT / path).exists()] == []


def test_every_extra_that_a_message_or_a_page_names_can_be_installed():
    import re
    import tomllib
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pages = [*(ROOT / "medisyn").rglob("*.py"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    named = {name for page in pages for found in re.findall(r"(?:medisyn|\s'?\.)\[([a-z,-]+)\]", page.read_text())
             for name in found.split(",")}
    assert {"dicom", "web", "judges"} <= named <= set(extras)


def test_the_readme_says_what_the_figures_say():
    """Shares that it rounds are those of docs/figures, as the last run of them wrote them."""
    told = README.read_text(encoding="utf-8")
    table = (ROOT / "docs" / "figures" / "recognition.md").read_text(encoding="utf-8")

    def share(row: str) -> float:
        return float(re.search(rf"^\| {re.escape(row)}[^|]*\|[^|]*\| ([\d.]+) ", table, re.MULTILINE)[1])
    types = re.search(r"the image type of (\d+) of (\d+) images", told)
    assert int(types[1]) == round(share("all, each type counting alike") * int(types[2]))
    said = {row: int(re.search(rf"{words}\s+(\d+) %", told)[1]) for row, words in {
        "pneumonia or normal": "normal chest is right in", "brain tumour": "kinds of brain MRI in",
        "blood cell": "kinds of blood cell in"}.items()}
    assert said == {row: round(100 * share(row)) for row in said}
