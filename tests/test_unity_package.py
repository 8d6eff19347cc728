"""The Unity package as files: what Unity refuses or loses when it is not right."""

import json
import re
from pathlib import Path

import pytest
from unity_metas import PACKAGE, assets, meta_of

PROGRAMS = Path(__file__).parent / "csharp"
LONGEST_LINE = 125
ASMDEFS = sorted(PACKAGE.rglob("*.asmdef"))
DOCUMENTS = [PACKAGE / "README.md", *sorted((PACKAGE / "Documentation~").glob("*.md"))]
LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")
FORBIDDEN = re.compile(r"System\.Reflection\.Emit|\bdynamic\b\s+\w|\.GetType\(\)\.Get|Activator\.|\bunsafe\b")
"""What ahead-of-time compilation cannot do, or what we do not allow ourselves."""


def guid_of(meta: Path) -> str:
    found = re.search(r"^guid: ([0-9a-f]{32})$", meta.read_text(), re.MULTILINE)
    assert found, f"{meta} has no GUID"
    return found[1]


def test_every_asset_has_a_meta_file_and_no_meta_file_is_left_over():
    wanted = {meta_of(path) for path in assets()}
    there = {path for path in PACKAGE.rglob("*.meta") if "~/" not in path.as_posix()}
    assert there == wanted


def test_guids_are_unique():
    guids = [guid_of(meta_of(path)) for path in assets()]
    assert len(set(guids)) == len(guids)


def test_the_manifest_names_version_unity_and_samples_that_exist():
    manifest = json.loads((PACKAGE / "package.json").read_text())
    assert manifest["name"] == "com.worldwire.unity"
    assert re.fullmatch(r"\d+\.\d+\.\d+", manifest["version"])
    assert re.fullmatch(r"\d{4}\.\d", manifest["unity"])
    assert f"## [{manifest['version']}]" in (PACKAGE / "CHANGELOG.md").read_text()
    folders = {path.name for path in (PACKAGE / "Samples~").iterdir()}
    assert {Path(sample["path"]).name for sample in manifest["samples"]} == folders


def test_the_version_that_the_client_tells_is_that_of_the_package():
    manifest = json.loads((PACKAGE / "package.json").read_text())
    source = (PACKAGE / "Runtime" / "Core" / "Client" / "WorldClient.cs").read_text()
    assert f'"worldwire-unity {manifest["version"]}"' in source


@pytest.mark.parametrize("path", ASMDEFS, ids=lambda path: path.stem)
def test_assembly_definitions(path):
    definition = json.loads(path.read_text())
    assert definition["name"] == path.stem
    ours = {item.stem for item in ASMDEFS}
    assert {name for name in definition["references"] if name.startswith("Worldwire")} <= ours
    assert (definition["includePlatforms"] == ["Editor"]) == ("Editor" in path.parts)
    assert not (definition["includePlatforms"] and definition["excludePlatforms"])


def test_every_source_belongs_to_an_assembly():
    folders = {path.parent for path in ASMDEFS}
    for source in PACKAGE.rglob("*.cs"):
        if "Samples~" not in source.parts:
            assert folders & set(source.parents), source


def test_nothing_in_it_is_beyond_ahead_of_time_compilation():
    for source in (PACKAGE / "Runtime").rglob("*.cs"):
        assert not FORBIDDEN.search(source.read_text()), source


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_of_the_documents_lead_somewhere(path):
    for target in LINK.findall(path.read_text()):
        assert (path.parent / target).exists(), target


def test_the_core_knows_no_engine():
    for source in (PACKAGE / "Runtime" / "Core").rglob("*.cs"):
        assert "UnityEngine" not in source.read_text(), source


def test_lines_of_sources_fit_a_screen():
    for source in [*PACKAGE.rglob("*.cs"), *PROGRAMS.rglob("*.cs")]:
        longest = max(map(len, source.read_text().splitlines()))
        assert longest <= LONGEST_LINE, (source, longest)
