"""``emopeft demo``: corpus, LoRA on five folds and leaderboard, in the folder one stands in."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from pathlib import Path

from emopeft.commands import board, run
from emopeft.commands.parsing import Commands, Parser, add_command, path


def add_to(commands: Commands) -> None:
    """Add the subcommand."""
    demo = add_command(
        commands, "demo", "try it all on synthetic speech, in about two minutes", _demo,
        description="Synthesise a small corpus into DIR/demo_corpus, run LoRA on its five folds "
        "(DIR/runs/demo) and write the tables (DIR/leaderboard_out). The speech is synthetic and "
        "the encoder has random weights: it shows that all works, nothing else. With --domains: "
        "only make the corpus of two domains, DIR/demo_domains, for transfer between them.",
    )  # fmt: skip
    demo.add_argument(
        "dir", metavar="DIR", nargs="?", type=path, default=Path(), help="where to (default: here)"
    )
    demo.add_argument("-o", "--override", metavar="KEY=VALUE", action="append", default=[],
                      help="set any key of the recipe; may be repeated")  # fmt: skip
    demo.add_argument(
        "--domains", action="store_true",
        help="make the corpus of two domains (an acted and a natural voice set), and run nothing",
    )  # fmt: skip


def _demo(flags: argparse.Namespace) -> int:
    if flags.domains:
        make_domains(flags.dir / "demo_domains")
        return 0
    corpus, runs = flags.dir / "demo_corpus", flags.dir / "runs" / "demo"
    make_corpus(corpus)
    words = ["-u", "demo", "-d", "emotion", "-p", "lora", "--corpus", "demo",
             "--data", str(corpus), "--out", str(runs)]  # fmt: skip
    words += [word for override in flags.override for word in ("-o", override)]
    print(f"emopeft run {shlex.join(words)}", flush=True)
    parser = Parser(prog="emopeft run")
    run.add_run_flags(parser)
    status = run.train(parser.parse_args(words), shlex.join(["emopeft", "run", *words]))
    return status or board.write_board(runs, flags.dir / "leaderboard_out")


def make_demo(name: str, root: Path) -> None:
    """The demo corpus of a name."""
    make_domains(root) if name == "demo-domains" else make_corpus(root)


def make_corpus(root: Path) -> None:
    """Synthesise the demo corpus with a progress bar, unless it is there already."""
    from emopeft.downstream.corpora.demo import read, synthesise

    _make(root, "demo corpus", synthesise)
    print(f"demo corpus: {len(read(root))} synthetic clips in {root}", flush=True)


def make_domains(root: Path) -> None:
    """Synthesise the demo corpus of two domains, and say how it is called."""
    from emopeft.downstream.corpora.demo_domains import STYLES, read, synthesise

    _make(root, "two domains", synthesise)
    counts = " and ".join(f"{len(read(root, (style,)))} {style}" for style in STYLES)
    print(
        f"demo corpus of two domains: {counts} synthetic clips in {root}\n"
        f"as one corpus:   --corpus demo-domains --data {root}\n"
        f"as two of them:  --corpus demo-acted+demo-natural --data {root}",
        flush=True,
    )


def _make(root: Path, name: str, synthesise: Callable[..., None]) -> None:
    from tqdm import tqdm

    with tqdm(total=0, unit="clip", desc=name, disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        synthesise(root, show)
