"""JavaScript packages from where the machine's npm finds them: exact versions, installed once into the cache."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

from toolkit.errors import TargetError
from toolkit.targets.cache import made_once

OLDEST_NODE = 18  # Debian 12's; the oldest that the packages here are tried with
INSTALL_SECONDS = 600
INSTALL = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
ADVICE = "Install it: apt-get install nodejs npm"


@lru_cache(maxsize=1)
def why_no_node() -> str:
    """What is missing of Node.js and npm, in a sentence; empty where both are there."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            return f"{program} is not installed. {ADVICE}"
    done = subprocess.run(["node", "--version"], capture_output=True, text=True)
    version = done.stdout.strip().removeprefix("v")
    if done.returncode or not version.split(".")[0].isdigit() or int(version.split(".")[0]) < OLDEST_NODE:
        return f"node is of version {version or 'unknown'}, not {OLDEST_NODE} or later. Install a later one."
    return ""


def installed(name: str, project: Path) -> Path:
    """The `node_modules` of a project, in the cache; nothing is written beside the project.

    Args:
        name: of the folder in the cache.
        project: a folder with a package.json and its package-lock.json.
    Raises:
        TargetError: npm is not there, or cannot install them.
    """
    files = {file: (project / file).read_text(encoding="utf-8") for file in ("package.json", "package-lock.json")}

    def install(folder: Path) -> None:
        if missing := why_no_node():
            raise TargetError(f"{project.name}: {missing}")
        for file, text in files.items():
            (folder / file).write_text(text, encoding="utf-8")
        try:
            done = subprocess.run(INSTALL, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise TargetError(f"npm: no end after {INSTALL_SECONDS} s. Is its registry reachable?") from error
        if done.returncode:
            lines = [
                line.removeprefix("npm error").removeprefix("npm ERR!").strip() for line in done.stderr.splitlines()
            ]
            said = ", ".join([line for line in lines if line][:2]) or "no message"
            wanted = ", ".join(json.loads(files["package.json"])["dependencies"])
            raise TargetError(f"npm cannot install {wanted} ({said}). Is its registry reachable?")

    return made_once(name, files, install) / "node_modules"
