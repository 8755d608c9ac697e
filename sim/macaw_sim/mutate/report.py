"""What came of a campaign, by unit."""

from collections import Counter

from .campaign import STAGES, Verdict
from .netlist import UNITS, Mutation

__all__ = ["score", "table"]


def score(mutations: tuple[Mutation, ...], verdicts: dict[int, Verdict]) -> tuple[int, int]:
    """Mutations caught, and those that are not shown to be equivalent."""
    found = [verdicts[mutation.number] for mutation in mutations]
    return sum(one.caught is not None for one in found), sum(one.equivalent is None for one in found)


def table(mutations: tuple[Mutation, ...], verdicts: dict[int, Verdict]) -> str:
    """A line for each unit, the sums, and what nothing has noticed."""
    checks = [stage for stage in STAGES if stage != "proof"]
    heads = ["unit", "mutations", *checks, "equivalent", "left"]
    rows = []
    for unit in (*UNITS, "all"):
        found = [verdicts[m.number] for m in mutations if unit in (m.unit, "all")]
        if found:
            by = Counter(one.caught for one in found if one.caught)
            rows.append([unit, str(len(found)), *(str(by[stage]) for stage in checks),
                         str(sum(one.equivalent is not None for one in found)), str(sum(one.open for one in found))])
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = ["  ".join(text.ljust(width) if not number else text.rjust(width)
                       for number, (text, width) in enumerate(zip(row, widths, strict=True)))
             for row in [heads, *rows]]
    caught, possible = score(mutations, verdicts)
    lines.append(f"\ncaught: {caught} of {possible} that are not shown to be equivalent"
                 + (f" ({100 * caught / possible:.1f} %)" if possible else ""))
    for mutation in mutations:
        verdict = verdicts[mutation.number]
        if verdict.open:
            lines.append(f"not noticed: {mutation.number} {mutation}")
            lines += [f"    takes other cycles: {verdict.timing}"] if verdict.timing else []
    return "\n".join(lines)
