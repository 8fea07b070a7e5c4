"""Names of what a training run leaves in its folder.

    run/
      learned_embeds.safetensors      the first text tower of the learned token
      learned_embeds_2.safetensors    the second, for models that have two
      learned_embeds_3.safetensors    the third, for Stable Diffusion 3.5
      checkpoints/step-000100/        the same files after 100 updates
      checkpoints/step-000100.state   what a resumed run reads
      previews/                       pictures painted during training

A run of several tokens keeps each in a folder of its own: `00-x/`, `01-y/` and so on.
"""

import re
from collections.abc import Sequence
from pathlib import Path

_LEARNED = "learned_embeds*.safetensors"
_NUMBERED = "[0-9][0-9]-*"  # the folder of one token among several
CHECKPOINTS = "checkpoints"


def is_run(folder: Path) -> bool:
    """Return whether a folder is that of a training run."""
    return all((folder / name).is_file() for name in ("config.json", "events.jsonl"))


def learned_name(tower: int = 1) -> str:
    """Return the name of a tower's file; towers count from 1."""
    return "learned_embeds.safetensors" if tower == 1 else f"learned_embeds_{tower}.safetensors"


def is_learned_name(path: Path) -> bool:
    """Return whether a file is named as a run or diffusers names learned tokens."""
    return path.stem.startswith("learned_embeds")


def tower_of(path: Path) -> tuple[Path, int]:
    """Return the file of the first tower, and which tower a file is, from 1."""
    match = re.fullmatch(r"(.*)_([2-9])", path.stem)
    return (path.with_stem(match[1]), int(match[2])) if match else (path, 1)


def learned_in(folder: Path) -> list[Path]:
    """Return the files of one learned token that lie in a folder, first tower first."""
    return sorted(folder.glob(_LEARNED))


def learned_in_run(folder: Path) -> list[Path]:
    """Return what a run ended with: the files of its token, or of each of its tokens.

    Checkpoints lie deeper and are not among them.
    """
    return learned_in(folder) + sorted(folder.glob(f"{_NUMBERED}/{_LEARNED}"))


def token_folder(run: Path, token: str, tokens: Sequence[str]) -> Path:
    """Return where a run of `tokens` keeps one of them: the run's folder if there is only one."""
    if len(tokens) == 1:
        return run
    readable = re.sub(r"[^A-Za-z0-9_-]+", "", token) or "token"
    return run / f"{list(tokens).index(token):02d}-{readable}"


def is_token_folder(folder: Path) -> bool:
    """Return whether a folder is that of one among a run's several tokens."""
    return folder.match(_NUMBERED)


def checkpoint_folder(run: Path, step: int) -> Path:
    """Return where a run keeps its tokens as they were after `step` updates."""
    return run / CHECKPOINTS / f"step-{step:06d}"


def state_file(run: Path, step: int) -> Path:
    """Return the file that a run resumes from after `step` updates."""
    return checkpoint_folder(run, step).with_suffix(".state")


def state_files(run: Path) -> list[Path]:
    """Return the files that a run can resume from, the latest last."""
    return sorted(run.glob(f"{CHECKPOINTS}/step-*.state"))
