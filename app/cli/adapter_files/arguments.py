"""The arguments of the tools, apart from their work: parsing them loads no torch."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from dataclasses import dataclass
from pathlib import Path

from app.cli.arguments import Add, Command, argument, flag, one_of
from worker.core.families.family import BaseFamily
from worker.core.lora_files.parts import BLOCKS
from worker.core.words import LORA_FORMATS, FusedDtype, MergeMethod, WeightDtype, values

MODULES = {"inspect": "inspection", "fuse": "base_models", "extract": "base_models"}
"""The modules of tools that are not in `files`."""
WEIGHTED = "FILE[:WEIGHT[:TEXT_WEIGHT]]"


@dataclass(frozen=True)
class WeightedFile:
    """An adapter file and its weights, as typed."""

    path: Path
    weight: float = 1.0
    text_encoder_weight: float | None = None


def weighted_file(word: str) -> WeightedFile:
    """Parse a file with weights; the path may contain colons."""
    weights: list[float] = []
    rest = word
    while len(weights) < 2:
        head, colon, tail = rest.rpartition(":")
        try:
            value = float(tail)
        except ValueError:
            break
        if not colon:
            break
        rest = head
        weights.insert(0, value)
    if not rest:
        raise ArgumentTypeError(f"{word!r} names no file; write {WEIGHTED}")
    return WeightedFile(Path(rest), *weights)


def tool_parser(name: str, parser_class: type[ArgumentParser]) -> ArgumentParser:
    """The parser for a tool's arguments."""
    tool = TOOLS[name]
    parser = parser_class(
        prog=f"brushwork adapters {name}", description=tool.about, allow_abbrev=False
    )
    for add in tool.arguments:
        add(parser)
    parser.set_defaults(module="adapter_files", tool=name)
    return parser


def path(name: str, metavar: str, help_text: str) -> Add:
    """A file or folder that has to be named."""
    return argument(name, type=Path, metavar=metavar, help=help_text)


def base_model(what: str, *flags: str, required: bool = False) -> Add:
    """A base model, by these flags or the usual ones."""
    names = flags or ("--base-model", "--base")
    return argument(
        *names,
        dest=names[-1][2:],
        metavar="BASE",
        help=f"{what}: diffusers folder, .safetensors, or starter",
        required=required,
    )


def dtype(
    choices: type[WeightDtype | FusedDtype], of: str = "", default: str | None = "fp16"
) -> Add:
    """The number type of the output file; without a default that of the base model's family."""
    usual = default or "fp16; bf16 where the base model needs it"
    help_text = f"number type{of} ({usual})"
    return argument("--dtype", choices=values(choices), default=default, help=help_text)


SOURCE = path("source", "IN", "any LoRA .safetensors file")
OUT = path("out", "OUT", "the file to write")
FORMAT = argument(
    "--format",
    choices=values(LORA_FORMATS),
    default="kohya",
    help="kohya: for all common programs; peft: for diffusers (kohya)",
)
DTYPE = dtype(WeightDtype)
TOOLS = {
    "inspect": Command(
        "Show a LoRA file's base, ranks, strength by block, dead layers and hashes.",
        path("file", "FILE", "any LoRA .safetensors file"),
        flag("--json", "print everything as one JSON object"),
        base_model("the base model of a DoRA"),
    ),
    "check": Command(
        "Check how seven programs read a LoRA file.",
        path("file", "FILE", "a LoRA .safetensors file"),
        argument(
            "--family",
            "--base",
            dest="base",
            choices=tuple(BaseFamily),
            help="family of the base model (detected from the file)",
        ),
    ),
    "convert": Command(
        "Convert a LoRA file to another format or number type.",
        SOURCE,
        path("target", "OUT", "the file to write"),
        FORMAT,
        DTYPE,
        base_model("the base model of a DoRA"),
        flag("--allow-loss", "write the file even if more than a tenth of the change is lost"),
    ),
    "merge": Command(
        "Merge several weighted LoRA files into one.",
        argument("adapters", nargs="+", type=weighted_file, metavar=WEIGHTED),
        argument("--out", type=Path, required=True, metavar="FILE", help="the file to write"),
        argument(
            "--method",
            choices=values(MergeMethod),
            default="linear",
            help="linear: exact, ranks add up; svd: best at a rank; ties, dare: as in their papers",
        ),
        argument("--rank", type=int, help="rank of the result, for svd, ties and dare"),
        argument("--density", type=float, default=0.5, help="share that ties and dare keep (0.5)"),
        argument("--seed", type=int, default=0, help="random seed of dare (0)"),
        FORMAT,
        DTYPE,
    ),
    "resize": Command(
        "Reduce the rank of a LoRA file and show how much is kept.",
        SOURCE,
        OUT,
        one_of(
            argument("--rank", type=int, help="the new rank of all modules"),
            argument(
                "--energy",
                type=float,
                metavar="SHARE",
                help="minimum share of energy per module, such as 0.95",
            ),
            required=True,
        ),
        flag("--dynamic", "with --energy: an individual rank per module"),
        FORMAT,
        DTYPE,
    ),
    "scale": Command(
        "Multiply a LoRA file's changes in the blocks of the UNet.",
        SOURCE,
        OUT,
        *(
            argument(
                f"--{part.value}",
                type=float,
                default=1.0,
                help=f"factor in the {part.value} blocks (1)",
            )
            for part in BLOCKS.values()
        ),
        FORMAT,
        DTYPE,
    ),
    "fuse": Command(
        "Fuse LoRA files into a base model: a diffusers folder or a single file.",
        base_model("the base model", required=True),
        argument(
            "--adapter",
            action="append",
            required=True,
            type=weighted_file,
            metavar=WEIGHTED,
            help="can be repeated",
        ),
        path("out", "OUT", "a folder, or a single file if it ends in .safetensors"),
        dtype(FusedDtype, " of all weights", None),
    ),
    "extract": Command(
        "Extract the difference of two base models as a LoRA file.",
        base_model("the base model", required=True),
        base_model("the fine-tuned model", "--tuned", required=True),
        argument("--rank", type=int, required=True, help="rank for every changed layer"),
        OUT,
        FORMAT,
        DTYPE,
    ),
}
