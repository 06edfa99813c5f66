"""An arm64 Linux with Python and the engines in a folder, and QEMU to run it: from the package sources of this machine.

Needs no privileges: apt works on lists and an archive of its own, for another architecture than the machine's, and
packages are unpacked, not installed.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from toolkit.errors import TargetError
from toolkit.targets.cache import made_once

RECIPE = 1  # another number for each change of what is below
DEBIAN_PACKAGES = ("python3:arm64", "libstdc++6:arm64", "qemu-user-static:amd64")
ENGINES = ("ai-edge-litert", "onnxruntime")  # of the versions that run on this machine, to compare like with like
BESIDE = ("numpy", "ml_dtypes")  # what these import; of any version, as the Python may be another
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
DOWNLOAD_SECONDS = 600
PIP = ("-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--no-deps")


@dataclass(frozen=True)
class Processor:
    """What /proc/cpuinfo tells of one, where engines look for what they may use."""

    part: str
    features: str


# QEMU's names. Its `max` is no processor that there is, and gives wrong int8 dot products in QEMU 7.2.
PROCESSORS = {
    "cortex-a72": Processor("0xd08", "fp asimd evtstrm crc32 cpuid"),  # Raspberry Pi 4
    "cortex-a76": Processor(  # Raspberry Pi 5: int8 dot products, arithmetic in float16
        "0xd0b",
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
    ),
}

APT_CONFIGURATION = """
APT::Architecture "arm64";
APT::Architectures {{ "arm64"; "amd64"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Dir::State "{folder}/state";
Dir::State::status "{folder}/state/status";
Dir::Cache "{folder}/cache";
"""


def why_no_sysroot() -> str:
    """What this machine lacks, in a sentence; empty where it lacks nothing."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"It takes Linux on x86-64; this is {platform.system()} on {platform.machine()}."
    missing = [program for program in ("apt-get", "dpkg-deb") if shutil.which(program) is None]
    if missing:
        return f"It takes Debian's package tools, and {' and '.join(missing)} is not there."
    if importlib.util.find_spec("pip") is None:
        return f"pip is not installed beside {sys.executable}. Install it: python -m ensurepip"
    return ""


def command_on(processor: str, script: Path) -> tuple[list[str], dict[str, str]]:
    """The command that runs a Python script on a processor, one of PROCESSORS, and its environment.

    The first call downloads 140 MB (370 MB unpacked).

    Raises:
        TargetError: a package cannot be downloaded or unpacked.
    """
    folder = made_once("arm64", _recipe(), _make)
    (python,) = sorted((folder / "system/usr/bin").glob("python3.?*"), key=lambda path: len(path.name))[:1]
    command = [folder / "qemu-aarch64", "-L", folder / processor, "-cpu", processor, python, script]
    environment = {"PYTHONPATH": str(folder / "packages"), "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    return [str(word) for word in command], environment


def _recipe() -> dict[str, object]:
    release = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    return {"recipe": RECIPE, "release": release, **{engine: version(engine) for engine in ENGINES}}


def _make(folder: Path) -> None:
    downloads = folder / "downloads"
    for each in ("state/lists/partial", "cache/archives/partial", "wheels"):
        (downloads / each).mkdir(parents=True)
    packages = _debian_packages(downloads)
    for package in packages:
        host = package.name.endswith("_amd64.deb")
        _run(["dpkg-deb", "-x", package, folder / ("host" if host else "system")], f"{package.name} cannot be unpacked")
    _keep_qemu(folder)
    for wheel in _wheels(downloads, packages):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / "packages")
    for name, processor in PROCESSORS.items():
        _make_root(folder, name, processor)
    shutil.rmtree(downloads)


def _debian_packages(downloads: Path) -> list[Path]:
    """Python, what it depends on, and QEMU, from the sources that apt on this machine is configured with."""
    configuration = downloads / "apt.conf"
    configuration.write_text(APT_CONFIGURATION.format(folder=downloads), encoding="utf-8")
    (downloads / "state/status").touch()
    environment = {**os.environ, "APT_CONFIG": str(configuration), "LC_ALL": "C.UTF-8"}
    advice = "apt must be configured with a source that has arm64 packages, as Debian's have"
    _run(["apt-get", "-qq", "update"], f"apt-get cannot read its package lists; {advice}", environment)
    install = ["apt-get", "-qq", "--yes", "--download-only", "install", *DEBIAN_PACKAGES]
    _run(install, f"apt-get cannot download {' '.join(DEBIAN_PACKAGES)}; {advice}", environment)
    return sorted((downloads / "cache/archives").glob("*.deb"))


def _wheels(downloads: Path, packages: list[Path]) -> list[Path]:
    """The engines for the Python that was among the packages."""
    (python,) = [each.name for each in packages if each.name.startswith("python3.") and "-minimal_" in each.name]
    wanted = [*(f"{engine}=={version(engine)}" for engine in ENGINES), *BESIDE]
    platforms = [word for each in PLATFORMS for word in ("--platform", each)]
    release = python.removeprefix("python").partition("-")[0]
    folder = downloads / "wheels"
    command: list[str | Path] = [
        sys.executable,
        *PIP,
        "--python-version",
        release,
        *platforms,
        "--dest",
        folder,
        *wanted,
    ]
    _run(command, f"pip cannot download {' '.join(wanted)} for arm64 and Python {release}")
    return sorted(folder.glob("*.whl"))


def _keep_qemu(folder: Path) -> None:
    """Of all machines that QEMU emulates, this one."""
    found = [folder / "host/usr/bin" / name for name in ("qemu-aarch64-static", "qemu-aarch64")]
    binary = next((path for path in found if path.is_file()), None)
    if binary is None:
        raise TargetError("arm64: Debian's qemu-user-static holds no qemu-aarch64-static.")
    shutil.copy2(binary, folder / "qemu-aarch64")
    shutil.rmtree(folder / "host")


def _make_root(folder: Path, name: str, processor: Processor) -> None:
    """What a program on this processor sees of the file system, in front of the machine's own files."""
    root = folder / name
    for each in ("proc", "sys/devices/system/cpu"):
        (root / each).mkdir(parents=True)
    (root / "usr").symlink_to("../system/usr")
    # Debian 12 keeps the loader in /lib; later releases in /usr/lib, with a link that another package makes.
    (root / "lib").symlink_to("../system/lib" if (folder / "system/lib").exists() else "../system/usr/lib")
    lines = {
        "processor": "0",
        "BogoMIPS": "108.00",
        "Features": processor.features,
        "CPU implementer": "0x41",
        "CPU architecture": "8",
        "CPU variant": "0x0",
        "CPU part": processor.part,
        "CPU revision": "3",
    }
    content = "".join(f"{key}\t: {value}\n" for key, value in lines.items())
    (root / "proc/cpuinfo").write_text(f"{content}\n", encoding="utf-8")
    for each in ("possible", "present", "online"):
        (root / "sys/devices/system/cpu" / each).write_text("0\n", encoding="utf-8")


def _run(command: Sequence[str | Path], problem: str, environment: dict[str, str] | None = None) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, env=environment, timeout=DOWNLOAD_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise TargetError(f"arm64: {problem} (no end after {DOWNLOAD_SECONDS} s).") from error
    except subprocess.CalledProcessError as error:
        lines = [line.strip() for line in error.stderr.splitlines() if line.startswith(("E:", "ERROR"))]
        raise TargetError(f"arm64: {problem} ({lines[-1] if lines else f'exit code {error.returncode}'}).") from error
