"""Unity's .meta files for the package: every file and folder needs one, except those ending in `~`.

    python tests/unity_metas.py

writes those that are missing. A GUID is never changed once it is there: scenes refer to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).parents[1] / "unity_bridge" / "unity"
NAME: Final = "com.worldwire.unity"

ASSET: Final = "  externalObjects: {}\n"
END: Final = "  userData: \n  assetBundleName: \n  assetBundleVariant: \n"
SCRIPT: Final = (
    "MonoImporter:\n"
    + ASSET
    + "  serializedVersion: 2\n  defaultReferences: []\n  executionOrder: 0\n  icon: {instanceID: 0}\n"
)
IMPORTERS: Final = {
    ".cs": SCRIPT,
    ".asmdef": "AssemblyDefinitionImporter:\n" + ASSET,
    ".shader": "ShaderImporter:\n" + ASSET + "  defaultTextures: []\n  nonModifiableTextures: []\n",
    ".md": "TextScriptImporter:\n" + ASSET,
}
FOLDER: Final = "folderAsset: yes\nDefaultImporter:\n" + ASSET
MANIFEST: Final = "PackageManifestImporter:\n" + ASSET


def assets() -> Iterator[Path]:
    """Every file and folder that Unity imports."""
    for path in sorted(PACKAGE.rglob("*")):
        hidden = any(part.endswith("~") or part.startswith(".") for part in path.relative_to(PACKAGE).parts)
        if not hidden and path.suffix != ".meta":
            yield path


def meta_of(path: Path) -> Path:
    return path.with_name(path.name + ".meta")


def text_of(path: Path) -> str:
    """The contents of a new .meta; the GUID comes from the place where the file is first put."""
    place = f"{NAME}/{path.relative_to(PACKAGE).as_posix()}"
    guid = hashlib.md5(place.encode(), usedforsecurity=False).hexdigest()
    return f"fileFormatVersion: 2\nguid: {guid}\n{importer_of(path)}{END}"


def importer_of(path: Path) -> str:
    if path.is_dir():
        return FOLDER
    return MANIFEST if path.name == "package.json" else IMPORTERS[path.suffix]


def main() -> None:
    for path in assets():
        if not meta_of(path).exists():
            meta_of(path).write_text(text_of(path))


if __name__ == "__main__":
    main()
