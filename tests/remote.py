"""Commands and models in processes of their own that ask a local server instead of the Hub."""

import os
import subprocess
import sys
from pathlib import Path


def hub_environment(hub_url: str, home: Path) -> dict[str, str]:
    return {
        "HF_ENDPOINT": hub_url,
        "HF_HOME": str(home / "hf"),
        "DTI_GEOM_CACHE": str(home / "cache"),
        "HF_HUB_OFFLINE": "0",
        "NO_COLOR": "1",
    }


def run(
    hub_url: str, home: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    env = os.environ | hub_environment(hub_url, home)
    command = [sys.executable, "-m", "dti_geom_cli", *arguments]
    return subprocess.run(
        command, env=env | environment, capture_output=True, text=True, timeout=120, check=False
    )


def open_remote(
    hub_url: str, home: Path, model: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Open a pipeline for training in a process that asks the local server."""
    code = (
        "import sys, torch, dti_geom\n"
        "told = []\n"
        "model = dti_geom.open_text_to_image(\n"
        "    sys.argv[1], dtype=torch.bfloat16, progress=lambda *step: told.append(step)\n"
        ")\n"
        "print(told[-1] if told else 'nothing to fetch')\n"
        "print('commit', model.commit)\n"
    )
    env = os.environ | hub_environment(hub_url, home) | environment
    command = [sys.executable, "-c", code, model]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=120, check=False
    )
