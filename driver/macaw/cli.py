"""The command ``macaw``: train, eval, bench, trace, verilog, synth, bitstream, info."""

import sys
import traceback
from pathlib import Path

import click
from macaw_hw.board.boards import BOARDS
from macaw_hw.config import CONFIGS

from .errors import MacawError
from .synth.flow import DEVICES
from .workloads import HARDWARE, WORKLOADS

__all__ = ["main"]

_INTERRUPTED = 130


def main(arguments=None):
    """Run the command line and exit: 0 when all is well, 1 after an error, 2 for wrong usage, 130 after SIGINT.

    An error is one line on stderr, ``macaw: error: ...``; ``--debug`` adds the traceback.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in arguments
    try:
        code = cli.main([a for a in arguments if a != "--debug"], prog_name="macaw", standalone_mode=False)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "macaw"
        code = _fail(f"{error.format_message().rstrip('.')} (see {where} --help)", error.exit_code)
    except click.ClickException as error:
        code = _fail(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        code = _fail("interrupted", _INTERRUPTED)
    except OSError as error:
        code = _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), debug=debug)
    except Exception as error:
        if not isinstance(error, _expected()):
            raise
        code = _fail(str(error), debug=debug)
    sys.exit(code or 0)


def _expected():
    """Exceptions whose message is meant for the user; any other is a defect, and its traceback is shown."""
    from macaw_sim.tools import ToolError
    from macaw_sim.verilator.build import BuildError

    return MacawError, ValueError, ToolError, BuildError


def _fail(message, code=1, debug=False):
    if debug:
        traceback.print_exc()
    click.echo(f"macaw: error: {message}", err=True)
    return code


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="macaw", message="macaw %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug):  # `main` looks for --debug itself, wherever it stands
    """Train and run neural networks on the Macaw accelerator."""


def _options(*names):
    """The options that several commands share."""
    choices = {
        "dataset": click.option("--dataset", type=click.Choice(["mnist", "digits"]), default="mnist",
                                show_default=True, help="MNIST, or the 8 x 8 digits of scikit-learn."),
        "data": click.option("--data", "folder", type=click.Path(path_type=Path), metavar="DIR",
                             help="Folder with the four idx files (.gz or not) of an MNIST-shaped data set. Without "
                                  "it: $MACAW_DATA, the cache, a download, or else scikit-learn's digits."),
        "batch_size": click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True,
                                   help="Images per step."),
        "config": click.option("--config", type=click.Choice(list(CONFIGS)), default="n16", show_default=True,
                               help="Configuration of the accelerator."),
        "backend": click.option("--backend", type=click.Choice(["verilator", "emulator"]), default="verilator",
                                show_default=True, help="The simulated RTL, or its bit-exact emulator."),
    }
    def decorate(command):
        for name in reversed(names):
            command = choices[name](command)
        return command
    return decorate


@cli.command()
@_options("dataset", "data")
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the training images.  [default: 1; 20 for "
                                                           "digits]")
@click.option("--limit", type=click.IntRange(min=1), metavar="IMAGES",
              help="Train on the first IMAGES of the training images.  [default: all]")
@_options("batch_size")
@click.option("--lr", type=click.FloatRange(min=0, min_open=True), default=0.1, show_default=True,
              help="Learning rate.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True,
              help="Of the initial weights and the order of the images.")
@_options("config", "backend")
@click.option("--init", type=click.Path(path_type=Path), metavar="FILE",
              help="Start from these weights (safetensors) instead of random ones.")
@click.option("--output", type=click.Path(path_type=Path), metavar="DIR",
              help="Folder for weights, metrics, curves and checkpoint.  [default: "
                   "build/runs/DATASET-CONFIG-BACKEND]")
@click.option("--resume/--restart", default=None,
              help="Continue from the checkpoint in the folder, or ignore it.  [default: continue an unfinished run "
                   "that has the same options]")
def train(**options):
    """Train the network features-128-classes, then evaluate it on the whole test set."""
    from .commands import train

    sys.exit(train(**options))


@cli.command("eval")
@click.option("--weights", type=click.Path(path_type=Path), required=True, metavar="FILE",
              help="Weights to evaluate (safetensors).")
@_options("dataset", "data")
@click.option("--limit", type=click.IntRange(min=1), metavar="IMAGES",
              help="Evaluate on the first IMAGES of the test images.  [default: all]")
@_options("batch_size", "config", "backend")
def evaluate(**options):
    """Accuracy, confusion matrix, and cycles per image of a trained network."""
    from .commands import evaluate

    evaluate(**options)


_LATENCY = click.IntRange(1, 100_000)


@cli.command()
@click.option("--work", "works", type=click.Choice(list(WORKLOADS)), multiple=True,
              help="What to measure; may be repeated.")
@click.option("--config", "configs", type=click.Choice(list(HARDWARE)), multiple=True,
              help="On which configuration; may be repeated.  [default: the cases that have a bar]")
@click.option("--latency", "latencies", type=_LATENCY, multiple=True, metavar="CYCLES",
              help="Read latency of the memory; may be repeated.  [default: 40]")
@click.option("--seconds", type=click.FloatRange(min=0), default=20, show_default=True,
              help="How long to measure the speed of the simulation of each configuration; 0 skips it.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
              help="JSON file; the roofline goes beside it as PNG.  [default: build/runs/bench/bench.json]")
def bench(**options):
    """Measure cycles on the RTL beside their limits, and the speed of the simulation."""
    from .commands import bench

    bench(**options)


@cli.command()
@click.option("--work", type=click.Choice(list(WORKLOADS)), default="train-64", show_default=True,
              help="What to record, once it is in its steady state.")
@click.option("--config", type=click.Choice(list(HARDWARE)), default="n16", show_default=True,
              help="Configuration of the accelerator.")
@click.option("--latency", type=_LATENCY, default=40, show_default=True, metavar="CYCLES",
              help="Read latency of the memory.")
@click.option("--output", type=click.Path(path_type=Path), metavar="DIR",
              help="Folder for trace.json and timeline.png.  [default: build/runs/trace-WORK-CONFIG]")
def trace(**options):
    """Record when each instruction waits, runs and stalls, and why."""
    from .commands import trace

    trace(**options)


@cli.command()
@_options("config")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
              help="Verilog file; the others go beside it.  [default: build/verilog/macaw_CONFIG.v]")
def verilog(config, output):
    """Write the Verilog of a configuration; JSON with its register map and content hash; the C header of
    registers and instructions; and the component description for Platform Designer."""
    from .commands import verilog

    verilog(config, output)


@cli.command()
@_options("config")
@click.option("--device", type=click.Choice(DEVICES), default="ecp5-85k", show_default=True,
              help="An ECP5 of speed grade 6.")
@click.option("--freq", "frequency", type=click.FloatRange(1, 1000), metavar="MHZ",
              help="Frequency to reach; with it, it is an error when the median of the seeds does not.  [default: aim "
                   "at 100 and report]")
@click.option("--seeds", type=click.IntRange(0, 100), default=1, show_default=True,
              help="Placements to make; 0 counts cells and estimates slow paths, in minutes and at any size.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
              help="JSON file.  [default: build/synth/macaw_CONFIG_DEVICE.json]")
def synth(**options):
    """Measure area and speed of a configuration on an FPGA, out of context, with open tools.

    Every step is cached by its content under build/synth, with its logs; an interrupted run continues with the step
    that was interrupted."""
    from .synth.commands import synth

    synth(**options)


@cli.command()
@click.option("--board", type=click.Choice(list(BOARDS)), default="ulx3s-85f", show_default=True,
              help="The board.")
@click.option("--seed", type=click.IntRange(min=1), default=1, show_default=True, help="Of the placement.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
              help="The bitstream; JSON with area and timing goes beside it.  [default: build/synth/macaw_BOARD.bit]")
def bitstream(board, seed, output):
    """Write the bitstream of a board: the accelerator, block memory, and the bridge for the serial backend."""
    from .synth.commands import bitstream

    bitstream(board, seed, output)


@cli.command()
@_options("config")
def info(config):
    """Show the configuration, its memories and peak, and the tools that were found."""
    from .commands import info

    info(config)
