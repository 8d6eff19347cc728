"""Imports point one way: sdk <- runtime <- training <- examples; and the client never needs torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"worldwire", "worldwire_runtime", "worldwire_training"}
ALLOWED = {
    "sdk/worldwire": {"worldwire"},
    "runtime/worldwire_runtime": {"worldwire", "worldwire_runtime"},
    "training/worldwire_training": OURS,
    "examples": OURS,
}
HEAVY = {"torch", "einops", "safetensors", "transformers", "tensorrt", "triton"}


def imported(path: Path) -> set[str]:
    """The top-level names of every import in a file, wherever in the file it stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where they point"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_point_the_right_way(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    wrong = {str(path): extra for path in files if (extra := imported(path) & OURS - ALLOWED[folder])}
    assert not wrong


def test_the_sdk_never_imports_what_only_the_runtime_installs():
    files = sorted((ROOT / "sdk").rglob("*.py"))
    assert files
    assert not {str(path): heavy for path in files if (heavy := imported(path) & HEAVY)}


def test_importing_the_client_loads_nothing_heavy():
    heavy = HEAVY | {"pygame", "moderngl", "av", "PIL", "worldwire_runtime"}
    program = f"import sys, worldwire, worldwire.cli; print(*({heavy!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_help_loads_nothing_heavy():
    program = (
        "import sys, contextlib; from worldwire.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        f"heavy = {HEAVY | {'pygame', 'moderngl', 'av'}!r} & sys.modules.keys()\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
