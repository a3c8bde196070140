"""Options of Live Avatar's scripts that are none here: what says what is so anyway is accepted, the rest refused.

A command line pasted from there works, or is told by name what to write instead. Nothing is ignored in silence.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from liveavatar_core.deployment import Deployment
from liveavatar_core.errors import BadInput

TRAINING_CONFIG = "s2v_causal_sft.yaml"
PUBLISHED_LORA = "liveavatar.safetensors"
"""The file of the LoRA in its published repository."""
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """An option that says what is so anyway."""

    name: str
    """Without the hyphens before it."""
    values: tuple[str, ...] = ()
    """The values that are so; none: it takes no value."""
    instead: str = ""
    """The next step after any other value."""


ACCEPTED = (
    Accepted(name="task", values=("s2v-14B",), instead="leave --task out: speech to video is what this makes"),
    Accepted(
        name="sample_solver", values=("euler",), instead="leave --sample_solver out: the model was distilled for it"
    ),
    Accepted(
        name="sample_shift", values=("3", "3.0"), instead="leave --sample_shift out: the model was distilled for 3"
    ),
    Accepted(
        name="training_config",
        values=(TRAINING_CONFIG,),
        instead="leave --training_config out: give --lora_rank and --storage_dtype where they differ",
    ),
    Accepted(name="convert_model_dtype"),
    Accepted(name="load_lora"),
    Accepted(name="single_gpu"),
)
"""What the scripts give and this does without being told."""

_WRITTEN = "write the longer prompt yourself: --prompt TEXT"
_SPOKEN = "record the voice, or make it with a program for that: --audio FILE"
_GIVEN = "give --image FILE --audio FILE --prompt TEXT"
REFUSED = {
    "t5_fsdp": "give --shard per_parameter --shard_scope everything",
    "dit_fsdp": "give --shard flat, or --shard per_parameter",
    "frame_num": "give --infer_frames 48 and --num_clip N",
    "lora_path": "give --lora_path_dmd FILE",
    "using_merged_ckpt": "give --lora none",
    "use_prompt_extend": _WRITTEN,
    "prompt_extend_method": _WRITTEN,
    "prompt_extend_model": _WRITTEN,
    "prompt_extend_target_lang": _WRITTEN,
    "enable_tts": _SPOKEN,
    "tts_prompt_audio": _SPOKEN,
    "tts_prompt_text": _SPOKEN,
    "tts_text": _SPOKEN,
    "pose_video": "leave it out: motion follows the voice alone",
    "start_from_ref": "leave it out: the portrait stands before the first frame already",
    "drop_motion_noisy": "leave it out",
    "use_dataset": _GIVEN,
    "dataset_sample_idx": _GIVEN,
    "sample_list": f"{_GIVEN}, a command for each video",
    "output_part": "give --num_clip N for a shorter video; a long one is written while it is made",
    "server_name": "there is no server: give --save_file out.mp4",
    "server_port": "there is no server: give --save_file out.mp4",
}
"""Options of the scripts that have no meaning here, and what to write instead."""


class _Accept(argparse.Action):
    """Takes an option that says what is so anyway; refuses any other value."""

    option: Accepted

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Compare the value; files by their name."""
        if self.option.values and PurePath(values).name not in self.option.values:
            allowed = " or ".join(self.option.values)
            raise BadInput(f"{option_string} {values} is not {allowed}", self.option.instead)
        setattr(namespace, self.dest, True)


class _Refuse(argparse.Action):
    """Refuses an option by its name."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Say what to write instead."""
        raise BadInput(f"{option_string} of Live Avatar's scripts is no option here", REFUSED[self.dest])


def add_script_options(parser: argparse.ArgumentParser) -> None:
    """Declare them all; --help leaves them out, as nobody needs them."""
    for option in ACCEPTED:
        action: Any = parser.add_argument(
            f"--{option.name}",
            action=_Accept,
            nargs=None if option.values else 0,
            default=False,
            help=argparse.SUPPRESS,
        )
        action.option = option
    for name in REFUSED:
        parser.add_argument(f"--{name}", action=_Refuse, nargs="?", help=argparse.SUPPRESS)
    parser.add_argument(
        "--save_dir", type=Path, metavar="FOLDER", help="Folder of the video, in place of --save_file: FOLDER/out.mp4."
    )


def target_of(options: argparse.Namespace) -> Path:
    """The file to write. Raises BadInput where a file and a folder are given."""
    if options.save_dir is not None and options.save_file is not None:
        raise BadInput(f"--save_dir {options.save_dir} and --save_file {options.save_file} both say where", "give one")
    if options.save_dir is not None:
        return Path(options.save_dir) / "out.mp4"
    return Path("out.mp4") if options.save_file is None else Path(options.save_file)


def read_as_scripts_do(layout: dict[str, Any], given: Collection[str]) -> dict[str, Any]:
    """Fields of Deployment. Several transformer ranks and one that decodes are a timestep pipeline in the scripts.

    Args:
        layout: fields by name.
        given: the names of those that somebody gave.
    """
    several = layout["num_gpus_dit"] > 1 and layout["ulysses_size"] == 1 and layout["enable_vae_parallel"]
    if several and "timestep_pipeline" not in given:
        return layout | {"timestep_pipeline": True}
    return layout


def check_script_options(options: argparse.Namespace, deployment: Deployment) -> None:
    """Refuse what a pasted option says and the deployment does not. Raises BadInput."""
    if options.single_gpu and deployment.num_cards > 1:
        what = f"--single_gpu, and a deployment over {deployment.num_cards} cards"
        raise BadInput(what, "leave --single_gpu out, or give --num_gpus_dit 1")
    if options.load_lora and deployment.lora == "none":
        raise BadInput("--load_lora and --lora none contradict each other", "leave one of them out")
    if options.convert_model_dtype and deployment.storage_dtype != deployment.compute_dtype:
        types = f"stored in {deployment.storage_dtype}, computed in {deployment.compute_dtype}"
        raise BadInput(f"--convert_model_dtype, and weights {types}", "leave it out, or give both the same type")
    lora = options.lora_path_dmd
    if lora is not None and not lora.exists() and _REPOSITORY.fullmatch(str(lora)):
        step = f"hf download {lora} {PUBLISHED_LORA} --local-dir FOLDER, then --lora_path_dmd FOLDER/{PUBLISHED_LORA}"
        raise BadInput(f"--lora_path_dmd {lora} is no file; a repository of that name is not fetched here", step)
