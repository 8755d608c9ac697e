"""Which mutations the checks catch: stages from quick to slow, each for those that are still there."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import numpy as np
from macaw import Device, Trainer, manual_seed, nn, optim
from macaw.errors import MacawError
from macaw_hw.config import Config
from macaw_hw.isa import Queue

from .. import timing
from ..fuzz import accesses, moments
from ..fuzz import campaign as fuzz
from ..fuzz.case import Mismatch, run
from ..fuzz.directed import LONG, STEADY, done_together, far_copies, sums_into_one_row, tiles_before_fault
from ..tools import locked
from ..verilator.backend import VerilatorBackend
from . import equivalence
from .device import CAUGHT, Mutant, choose, record, replay
from .netlist import Netlist
from .presets import check_high_bits

__all__ = ["STAGES", "Campaign", "Verdict"]

FAST = {"read_latency": 5, "write_latency": 5, "stalls": 0.1}
STAGES = ("programs", "timing", "limits", "disturbed", "proof", "directed", "more programs", "training")
"""In this order; ``proof`` looks for mutations that change nothing."""
_BITWISE = ("bit", "high", "field", "high", "window_edge", "high", "local", "high")
_FAR = 64 << 20
_BATCH, _SECONDS = 2, 6
_SIZES, _SAMPLES = (23, 9, 5), 6


@dataclass
class Verdict:
    """What is known of a mutation.

    Attributes
    ----------
    passed : list of str
        Stages that have not noticed it.
    caught : str or None
        The stage that has.
    how : str
        What that stage says.
    equivalent : str or None
        The module at whose ports it changes nothing.
    tried : list of str
        Modules at whose ports it does change something, or may.
    timing : str
        The first program that took other cycles, with the same results.
    """
    passed: list = field(default_factory=list)
    caught: str | None = None
    how: str = ""
    equivalent: str | None = None
    tried: list = field(default_factory=list)
    timing: str = ""

    @property
    def open(self) -> bool:
        """Neither caught nor shown to be equivalent."""
        return self.caught is None and self.equivalent is None


class Campaign:
    """Takes the mutations of a netlist through the stages, and keeps what it finds in a file.

    Parameters
    ----------
    config : Config
    netlist : Netlist
    seed : int
        Of the programs.
    part : (int, int)
        Which part of how many: every so manieth mutation, from this one on. Parts can run at the same time.
    say : callable
        Is told what goes on.
    """

    def __init__(self, config: Config, netlist: Netlist, *, seed: int = 1, part: tuple[int, int] = (1, 1),
                 say: Callable[[str], None] = print):
        self.config, self.netlist, self.seed, self._part, self._say = config, netlist, seed, part, say
        self.path = netlist.prepared.parent / f"results-{seed}.json"
        self.verdicts = {mutation.number: Verdict() for mutation in netlist.mutations} | self._stored()

    def _stored(self):
        if not self.path.exists():
            return {}
        return {int(number): Verdict(**one) for number, one in json.loads(self.path.read_text()).items()}

    def run(self, stages=STAGES) -> None:
        """Go on where the last call ended. `ValueError` if the device without mutation does not pass a stage."""
        for stage in stages:
            first, parts = self._part
            left = [mutation for mutation in self.netlist.mutations[first - 1::parts]
                    if self.verdicts[mutation.number].open and stage not in self.verdicts[mutation.number].passed]
            if left:
                self._say(f"{stage}: {len(left)} mutations")
                {"proof": self._proofs}.get(stage, self._stage)(stage, left)

    def _stage(self, stage, left):
        check = getattr(self, "_" + stage.replace(" ", "_"))()
        unchanged = Verdict()
        self._apply(stage, check, 0, unchanged)
        if unchanged.caught:
            raise ValueError(f"the netlist without mutation does not pass the stage {stage!r}: {unchanged.how}")
        for mutation in left:
            verdict = self.verdicts[mutation.number]
            self._apply(stage, check, mutation.number, verdict)
            self._save(mutation)
            if verdict.open:
                self._say(f"  {mutation.number} is not noticed: {mutation}")

    def _apply(self, stage, check, number, verdict):
        try:
            check(number, verdict)
        except (*CAUGHT, fuzz.Failure, MacawError, AssertionError, ValueError) as error:
            verdict.caught, verdict.how = stage, str(error).splitlines()[0][:300] if str(error) else repr(error)
        else:
            verdict.passed.append(stage)

    def _save(self, *mutations):
        with locked(self.path.with_suffix(".lock")):
            stored = self._stored() | {one.number: self.verdicts[one.number] for one in mutations}
            temporary = self.path.with_suffix(".tmp")
            temporary.write_text(json.dumps({number: asdict(one) for number, one in stored.items()}, indent=1))
            temporary.replace(self.path)

    # ---- stages: each makes a function of a number that raises if it notices the mutation

    def _recorded(self, options, **arguments):
        first = Mutant(self.config, self.netlist.verilog, 0, seed=self.seed, **options)
        steps = record(first, seed=self.seed, **arguments)
        first.close()

        def check(number, verdict):
            def notice(text):
                verdict.timing = verdict.timing or text
            device = Mutant(self.config, self.netlist.verilog, number, seed=self.seed, **options)
            try:
                replay(device, steps, notice)
            finally:
                device.close()
        return check

    def _programs(self):
        return self._recorded(FAST, legal=30, illegal=34)

    def _more_programs(self):
        return self._recorded(fuzz.timing(self.seed), legal=80, illegal=54)

    def _limits(self):
        """Programs that tell single bits apart, one by one."""
        recorded = self._recorded(FAST, rules=True)
        together = done_together(self.config)

        def check(number, verdict):
            recorded(number, verdict)
            for options, look in ((FAST, self._bits), (STEADY, lambda device: self._together(device, together))):
                device = Mutant(self.config, self.netlist.verilog, number, seed=self.seed, **options)
                try:
                    look(device)
                finally:
                    device.close()
            far = VerilatorBackend(self.config, dram_bytes=_FAR, verilog=self.netlist.verilog, **FAST)
            try:
                far_copies(far, np.random.default_rng(self.seed), 60)
            finally:
                far.close()
        return check

    def _bits(self, device):
        tiles_before_fault(device)
        sums_into_one_row(device, np.random.default_rng(self.seed))
        check_high_bits(device, self.seed)

    @staticmethod
    def _together(device, case):
        registers = run(device, case)
        if registers["instructions"] != len(Queue):
            raise Mismatch(f"{len(Queue)} instructions that are done in the same cycle count as {registers}")

    def _directed(self):
        """Faults that tell bits of addresses and windows apart; tokens and instructions by the thousand."""
        return self._recorded(FAST, legal=10, illegal=160, kinds=_BITWISE, overflow=12, long=LONG)

    def _disturbed(self):
        def check(number, verdict):
            device = Mutant(self.config, self.netlist.verilog, number, seed=self.seed)
            try:
                accesses.idle(device, np.random.default_rng(self.seed), 2000)
            finally:
                device.close()
            moments.campaign(self.config, runs=60, seed=self.seed, options=FAST, verilog=self.netlist.verilog)
        return check

    def _timing(self):
        def check(number, verdict):
            choose(self.netlist.verilog, number)
            timing.check(self.config, verilog=self.netlist.verilog)
        return check

    def _training(self):
        expected = self._trained("emulator")

        def check(number, verdict):
            choose(self.netlist.verilog, number)
            found = self._trained("verilator", verilog=self.netlist.verilog)
            for name, values in expected.items():
                assert np.array_equal(values.view("<u4"), found[name].view("<u4")), f"{name} differs"
        return check

    def _trained(self, backend, **options):
        """Weights after two steps and outputs of inference."""
        rng = np.random.default_rng(self.seed)
        manual_seed(self.seed)
        with Device(self.config, backend, dram_bytes=1 << 20, **options) as device:
            inside = _SIZES[1]
            model = nn.Sequential(nn.Linear(_SIZES[0], inside), nn.ReLU(), nn.Linear(inside, _SIZES[2]))
            trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.25), device,
                              batch_size=_SAMPLES)
            x = rng.integers(0, 256, (_SAMPLES, _SIZES[0]), dtype=np.uint8)
            for _ in range(2):
                trainer.train_step(x, rng.integers(0, _SIZES[2], _SAMPLES))
            return trainer.model.state_dict() | {"outputs": trainer.predict(x)}

    def _proofs(self, stage, left):
        """The module of each mutation, then those around it that are larger. What a counter shows is not tried."""
        left = [mutation for mutation in left if not self.verdicts[mutation.number].timing]
        folder = self.netlist.prepared.parent / "-".join(map(str, ("proofs", *self._part)))
        around = {m.number: [context for context in equivalence.contexts(m.module)
                             if context not in self.verdicts[m.number].tried] for m in left}
        while left:
            batch, left = left[:_BATCH], left[_BATCH:]
            asked = [(mutation, around[mutation.number].pop(0)) for mutation in batch if around[mutation.number]]
            found = equivalence.prove(self.netlist.prepared, asked, folder, limit=_SECONDS)
            for mutation, context in asked:
                verdict = self.verdicts[mutation.number]
                if found[mutation.number] == "equivalent":
                    verdict.equivalent = context
                    continue
                verdict.tried.append(context)
                if around[mutation.number]:
                    left.append(mutation)
            for mutation in batch:
                if self.verdicts[mutation.number].open and not around[mutation.number]:
                    self.verdicts[mutation.number].passed.append(stage)
            self._save(*batch)
