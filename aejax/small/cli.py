"""aejax shrink: a smaller copy of a trained model."""

import argparse
import pathlib

from aejax import files
from aejax.cli import Verb
from aejax.errors import UserError

KINDS = ("float32", "float16", "bfloat16", "int8", "int4")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", help="a run's folder, a shipped name, a .safetensors file, hf://..."
    )
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="NAME.safetensors")
    parser.add_argument(
        "--keep", type=float, metavar="SHARE", help="fraction of the channels to keep, such as 0.5"
    )
    parser.add_argument(
        "--groups", nargs="+", choices=("hidden", "widths", "latent"),
        default=["hidden", "widths"], help="what --keep reduces (default: hidden widths)",
    )  # fmt: skip
    parser.add_argument(
        "--rank", type=int, metavar="R", help="factorise every matrix of a dense model to rank R"
    )
    parser.add_argument(
        "--store", choices=KINDS, default="float32",
        help="type of the stored weights; loading converts them to float32",
    )  # fmt: skip
    parser.add_argument("--sparse", action="store_true", help="store non-zero weights only")
    parser.add_argument(
        "--checkpoint", default="last", help="checkpoint of a run: last, best or a step"
    )
    files.add_force(parser)


def _run(args: argparse.Namespace) -> int:
    out = pathlib.Path(args.out)
    out = out if out.suffix == ".safetensors" else out.with_name(f"{out.name}.safetensors")
    files.check_outputs([out, out.with_suffix(".json")], force=args.force)
    if (args.keep, args.rank, args.store, args.sparse) == (None, None, "float32", False):
        raise UserError("nothing to do: give --keep, --rank, --store or --sparse")

    from aejax.loading import load
    from aejax.training.build import count_parameters
    from aejax.training.prune import sparsity_of

    trained = load(args.model, args.checkpoint)
    before = count_parameters(trained.variables["params"])
    if args.keep is not None:
        from aejax.small.channels import without_channels

        trained = without_channels(trained, args.keep, tuple(args.groups))
    if args.rank is not None:
        from aejax.small.rank import of_rank

        trained = of_rank(trained, args.rank)
    trained.save(out, args.store, sparse=args.sparse)
    after, zeros = (f(trained.variables["params"]) for f in (count_parameters, sparsity_of))
    print(
        f"  {before:,} -> {after:,} parameters ({100 * zeros:.0f} % of the kernels are zero), "
        f"{out.stat().st_size:,} bytes: {out}"
    )
    if args.keep is not None or args.rank is not None:
        print(f"  fine-tune it: aejax train --from {out} --workdir DIR")
    return 0


shrink = Verb(_arguments, _run)
