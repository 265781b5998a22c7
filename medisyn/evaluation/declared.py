"""Declared: what a synthetic set says of the guard that its maker applied, counted from its provenance.

Nothing of it is measured here: the copy rates beside it are. A set of another maker declares nothing, and that is a row too.
"""

import json

from medisyn.estimates import Estimate, absent, proportion
from medisyn.evaluation.sets import Sets

REFUSED = "refused.jsonl"   # in a synthetic collection: a line a seed of which nothing was kept


def refusals(sets: Sets) -> list[dict]:
    """The lines of the collection's refused.jsonl, one a prompt and seed; a line cut short by a kill is passed over."""
    folders = [folder for path in sets.synthetic.paths[:1] for folder in path.parents[:2]]
    file = next((folder / REFUSED for folder in folders if (folder / REFUSED).is_file()), None)
    found: dict[tuple, dict] = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file else ():
        try:
            told = json.loads(line)
            found[told["prompt"], int(told["seed"])] = {"tries": int(told["tries"])} | told
        except (ValueError, KeyError, TypeError):
            continue
    # one that another guard let pass at another time was kept after all
    kept = {(how.prompt, how.seed) for how in (r.provenance for r in sets.synthetic.records) if how}
    return [told for key, told in found.items() if key not in kept]


def measure(sets: Sets) -> list[Estimate]:
    """guard_looked_share, guard_blocked_share, guard_flagged_share, guard_refused_share; 0 blocked is no proof of novelty.

    Of blocked and refused images only the count is known: they were not kept. Seeds that are refused stand in the
    collection's refused.jsonl, blocked tries in the provenance of the image that was kept in their place.
    """
    made = [record.provenance for record in sets.synthetic.records]
    said = [how.guard for how in made if how and how.guard]
    if not said:
        why = "no synthetic image says that a guard looked at it: its maker has none, or it was off (`--guard off`)"
        return [absent("guard_looked_share", why, n=len(made), better="higher")]
    gone = refusals(sets)
    tries = sum(row["tries"] for row in gone)
    blocked = sum(one.blocked for one in said) + tries
    indices = sorted({one.guard for one in said})
    by = f"as the maker declares, by guard index {', '.join(indices)}"
    return [proportion(len(said), len(made), name="guard_looked_share", better="higher", note=by),
            proportion(blocked, len(said) + blocked, name="guard_blocked_share",
                       note=f"{blocked:,} images were too alike to a training image and not kept, of {len(said) + blocked:,} "
                            f"drawn; {by}"),
            proportion(len(gone), len(said) + len(gone), name="guard_refused_share",
                       note=f"{len(gone):,} of the seeds that were asked for gave nothing new in any try; {by}"),
            proportion(sum(one.verdict == "flagged" for one in said), len(said), name="guard_flagged_share", better="lower",
                       note=f"kept although too alike to a training image; {by}")]

