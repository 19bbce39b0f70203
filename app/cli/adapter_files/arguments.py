"""The arguments of the tools, apart from their work: parsing them loads no torch."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from dataclasses import dataclass
from pathlib import Path

from worker.core.bases.family import BaseFamily
from worker.core.lora_files.parts import BLOCKS
from worker.core.words import LORA_FORMATS, FusedDtype, MergeMethod, WeightDtype, values

TOOLS = {
    "inspect": "Show a LoRA file's base, ranks, strength by block, dead layers and hashes.",
    "check": "Check how seven programs read a LoRA file.",
    "convert": "Convert a LoRA file to another format or number type.",
    "merge": "Merge several weighted LoRA files into one.",
    "resize": "Reduce the rank of a LoRA file and show how much is kept.",
    "scale": "Multiply a LoRA file's changes in the blocks of the UNet.",
    "fuse": "Fuse LoRA files into a base model: a diffusers folder or a single file.",
    "extract": "Extract the difference of two base models as a LoRA file.",
}
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


def _add_output(parser: ArgumentParser) -> None:
    """Add the format and number type of the output file."""
    help_text = "kohya: for all common programs; peft: for diffusers (kohya)"
    parser.add_argument("--format", choices=values(LORA_FORMATS), default="kohya", help=help_text)
    parser.add_argument(
        "--dtype", choices=values(WeightDtype), default="fp16", help="number type (fp16)"
    )


def _add_base(parser: ArgumentParser, what: str, *flags: str, required: bool = False) -> None:
    """Add a base model, by these flags or the usual ones."""
    names = flags or ("--base-model", "--base")
    help_text = f"{what}: diffusers folder, .safetensors, or starter"
    settings = {"dest": names[-1][2:], "metavar": "BASE", "help": help_text}
    parser.add_argument(*names, **settings, required=required)


def tool_parser(name: str, parser_class: type[ArgumentParser]) -> ArgumentParser:
    """The parser for a tool's arguments."""
    parser = parser_class(
        prog=f"brushwork adapters {name}", description=TOOLS[name], allow_abbrev=False
    )
    ADD_ARGUMENTS[name](parser)
    parser.set_defaults(module="adapter_files", tool=name)
    return parser


def _add_inspect(parser: ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="any LoRA .safetensors file")
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")
    _add_base(parser, "the base model of a DoRA")


def _add_check(parser: ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="a LoRA .safetensors file")
    parser.add_argument(
        "--family",
        "--base",
        dest="base",
        choices=tuple(BaseFamily),
        help="family of the base model (detected from the file)",
    )


def _add_convert(parser: ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="IN", help="any LoRA .safetensors file")
    parser.add_argument("target", type=Path, metavar="OUT", help="the file to write")
    _add_output(parser)
    _add_base(parser, "the base model of a DoRA")
    parser.add_argument(
        "--allow-loss",
        action="store_true",
        help="write the file even if more than a tenth of the change is lost",
    )


def _add_merge(parser: ArgumentParser) -> None:
    parser.add_argument("adapters", nargs="+", type=weighted_file, metavar=WEIGHTED)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write")
    parser.add_argument(
        "--method",
        choices=values(MergeMethod),
        default="linear",
        help="linear: exact, ranks add up; svd: best at a rank; ties, dare: as in their papers",
    )
    parser.add_argument("--rank", type=int, help="rank of the result, for svd, ties and dare")
    parser.add_argument(
        "--density", type=float, default=0.5, help="share that ties and dare keep (0.5)"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed of dare (0)")
    _add_output(parser)


def _add_resize(parser: ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="IN", help="any LoRA .safetensors file")
    parser.add_argument("out", type=Path, metavar="OUT", help="the file to write")
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--rank", type=int, help="the new rank of all modules")
    wanted.add_argument(
        "--energy",
        type=float,
        metavar="SHARE",
        help="minimum share of energy per module, such as 0.95",
    )
    parser.add_argument(
        "--dynamic", action="store_true", help="with --energy: an individual rank per module"
    )
    _add_output(parser)


def _add_scale(parser: ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="IN", help="any LoRA .safetensors file")
    parser.add_argument("out", type=Path, metavar="OUT", help="the file to write")
    for part in BLOCKS.values():
        help_text = f"factor in the {part.value} blocks (1)"
        parser.add_argument(f"--{part.value}", type=float, default=1.0, help=help_text)
    _add_output(parser)


def _add_fuse(parser: ArgumentParser) -> None:
    _add_base(parser, "the base model", required=True)
    parser.add_argument(
        "--adapter",
        action="append",
        required=True,
        type=weighted_file,
        metavar=WEIGHTED,
        help="can be repeated",
    )
    parser.add_argument(
        "out",
        type=Path,
        metavar="OUT",
        help="a folder, or a single file if it ends in .safetensors",
    )
    parser.add_argument(
        "--dtype",
        choices=values(FusedDtype),
        default="fp16",
        help="number type of all weights (fp16)",
    )


def _add_extract(parser: ArgumentParser) -> None:
    _add_base(parser, "the base model", required=True)
    _add_base(parser, "the fine-tuned model", "--tuned", required=True)
    parser.add_argument("--rank", type=int, required=True, help="rank for every changed layer")
    parser.add_argument("out", type=Path, metavar="OUT", help="the file to write")
    _add_output(parser)


ADD_ARGUMENTS = {
    "inspect": _add_inspect,
    "check": _add_check,
    "convert": _add_convert,
    "merge": _add_merge,
    "resize": _add_resize,
    "scale": _add_scale,
    "fuse": _add_fuse,
    "extract": _add_extract,
}
