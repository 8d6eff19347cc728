"""The Unreal plugin as far as it can be tested without an engine.

Its core is the C++ client, its sources compile against stand-ins (tests/unreal_standins), its files are laid
out as the engine wants them.
"""

import importlib.util
import json
import re
from pathlib import Path

import pytest
from cpp_fixture import CORE, STRICT, needs_compiler, run

PLUGIN = CORE.parent / "unreal" / "Worldwire"
MODULE = PLUGIN / "Source" / "Worldwire"
STANDINS = Path(__file__).parent / "unreal_standins"
FLAGS = ("-std=c++17", "-fsyntax-only", *STRICT.split(), "-Wno-unused-parameter")
HEADERS = sorted((MODULE / "Public").glob("*.h"))


def test_the_copied_core_is_in_step():
    spec = importlib.util.spec_from_file_location("amalgamate", CORE / "amalgamate.py")
    amalgamate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(amalgamate)
    assert amalgamate.TARGET.read_text() == amalgamate.amalgamated(), (
        "the client has changed: run python unity_bridge/cpp/amalgamate.py"
    )


@needs_compiler
@pytest.mark.parametrize("source", sorted((MODULE / "Private").glob("*.cpp")), ids=lambda path: path.stem)
def test_sources_compile_against_stand_ins(source):
    folders = (STANDINS, MODULE / "Public", MODULE / "Private", MODULE / "ThirdParty" / "worldwire")
    run("g++", *FLAGS, *(f"-I{folder}" for folder in folders), source)


def test_the_descriptor_names_modules_that_exist():
    descriptor = json.loads((PLUGIN / "Worldwire.uplugin").read_text())
    assert descriptor["FileVersion"] == 3
    for module in descriptor["Modules"]:
        rules = PLUGIN / "Source" / module["Name"] / f"{module['Name']}.Build.cs"
        assert f"public class {module['Name']} : ModuleRules" in rules.read_text()


@pytest.mark.parametrize("header", HEADERS, ids=lambda path: path.stem)
def test_public_headers_keep_the_rules_of_unreal_header_tool(header):
    text = header.read_text()
    includes = re.findall(r'#include "(.+)"', text)
    assert includes[-1] == f"{header.stem}.generated.h"
    assert "worldwire.hpp" not in includes  # the core stays private
    for kind, specifiers in re.findall(r"(UPROPERTY|UFUNCTION)\((.*)\)", text):
        if any(word in specifiers for word in ("Edit", "Visible", "Blueprint")):
            assert 'Category = "Worldwire' in specifiers, f"{kind}({specifiers})"


def test_the_plugin_is_whole_when_it_is_copied():
    """No link, no include that leaves its folder."""
    for path in PLUGIN.rglob("*"):
        assert not path.is_symlink()
        if path.suffix in (".h", ".cpp", ".hpp"):
            assert '#include "../' not in path.read_text()
