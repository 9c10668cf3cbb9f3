"""The rows of a loop: triplets to start from, scenes to draw from, and test rows, of which no scene is in two.

They are the same before the start, where `rasura check` counts them, and in the loop's first step, which lists them.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rasura.manifests.errors import RasuraError
from rasura.manifests.run_layout import NoRun
from rasura.pipeline.loop.recipe import LoopRecipe
from rasura.pipeline.recipe.load import Fault, raise_faults
from rasura.pipeline.recipe.positions import KeyPath, Positions
from rasura.pipeline.training.rows import PICTURES, TRIPLET, RowReader, RowRef
from rasura.pipeline.training.settings import FlowRows

COLUMNS: Mapping[str, Sequence[str]] = {"test": PICTURES, "initial": TRIPLET, "pool": PICTURES}
"""The parts of a recipe that name rows, with the columns that these need, in the order in which they take scenes."""


@dataclass(frozen=True)
class Selection:
    """The rows of a loop.

    initial, pool, test: without the rows whose scene is in a part before (test, then initial).
    drawn: the number of scenes that each round will draw.
    """

    initial: Sequence[RowRef]
    pool: Sequence[RowRef]
    test: Sequence[RowRef]
    drawn: Sequence[int]


def select_rows(recipe: LoopRecipe, positions: Positions, reader: RowReader) -> Selection:
    """Select the rows of a loop, and check that there are enough of them for all of its rounds.

    Args:
        positions: places of the recipe's values, for messages.

    Raises:
        RecipeError: a run, flow or split that is not there, rows without the columns that are needed, a part without
            rows, or a round for which no scene is left; a line each with its place.
    """
    raise_faults(list(find_row_faults(recipe, reader)), positions)
    parts: dict[str, list[RowRef]] = {}
    owners: dict[str, str] = {}
    faults: list[Fault] = []
    for part in COLUMNS:
        rows = reader.list_rows(getattr(recipe, part), recipe.seed)
        parts[part] = [ref for ref in rows if ref.scene not in owners]
        if not parts[part]:
            faults.append(((part,), _describe_empty(part, [owners[ref.scene] for ref in rows])))
        owners |= {ref.scene: part for ref in parts[part]}
    raise_faults(faults, positions)
    drawn: list[int] = []
    used: set[str] = set()
    for index, entry in enumerate(recipe.rounds):
        scenes = draw_rows(parts["pool"], used, entry.count, recipe.cap, recipe.exclude)
        if not scenes:
            fault = ("rounds", index, "count"), _describe_used_up(recipe, parts["pool"], drawn)
            raise_faults([fault], positions)
        used |= {ref.scene for ref in scenes}
        drawn.append(len(scenes))
    return Selection(parts["initial"], parts["pool"], parts["test"], drawn)


def find_row_faults(recipe: LoopRecipe, reader: RowReader) -> Iterator[Fault]:
    """Yield a fault for every entry of a recipe that names no rows, or rows that cannot be used."""
    entries: list[tuple[KeyPath, FlowRows, Sequence[str]]] = [
        ((part, index), entry, COLUMNS[part])
        for part in sorted(COLUMNS)
        for index, entry in enumerate(getattr(recipe, part))
    ]
    final = recipe.final.rows if recipe.final else []
    entries += [(("final", "rows", index), entry, TRIPLET) for index, entry in enumerate(final)]
    for place, entry, columns in entries:
        try:
            table = reader.open_flow(entry.run, entry.flow, columns)
        except NoRun as error:
            yield (*place, "run"), str(error)
            continue
        except (RasuraError, OSError) as error:
            yield (*place, "flow"), str(error)
            continue
        splits = Counter(row.get("split") or "none" for row in table.read_light(("split",)).to_pylist())
        if not splits:
            yield (*place, "flow"), f"the flow '{entry.flow}' of {entry.run} has no rows"
        elif entry.split is not None and entry.split not in splits:
            counts = ", ".join(f"{count} in '{name}'" for name, count in sorted(splits.items()))
            message = f"'{entry.flow}' of {entry.run} has no rows in the split '{entry.split}'; it has {counts}"
            remedy = "name another split, or leave `split` out to take rows of all"
            yield (*place, "split"), f"{message}: {remedy}"


def _describe_empty(part: str, owners: Sequence[str]) -> str:
    """Describe why a part has no rows.

    Args:
        owners: for each of its rows, the part that has its scene.
    """
    counts = " and ".join(f"{count} in `{name}`" for name, count in Counter(owners).items())
    text = f"no rows are left: all {len(owners)} are of scenes that are used elsewhere ({counts})"
    return f"{text}; give that part a `limit`, or name flows with other scenes here"


def _describe_used_up(recipe: LoopRecipe, pool: Sequence[RowRef], drawn: Sequence[int]) -> str:
    excluded = len({ref.scene for ref in pool if ref.label in recipe.exclude})
    text = f"no scene is left for this round: the pool has {len({ref.scene for ref in pool})} scenes, earlier rounds"
    text += f" draw {sum(drawn)}" + (f" and {excluded} have a label that is excluded" if excluded else "")
    return f"{text}; lower the `count` of earlier rounds, or add flows to `pool`"


def draw_rows(
    pool: Sequence[RowRef], used_scenes: set[str], count: int, cap: int, exclude: Sequence[str]
) -> list[RowRef]:
    """Draw the next scenes of a pool, in its order.

    Args:
        used_scenes: scenes that are not drawn again.
        count: scenes that are drawn, or as many as there are.
        cap: scenes of one label at most.
        exclude: labels that are not drawn.

    Examples:
        >>> pool = [RowRef("run", "flow", "shard", n, str(n), scene, "dog") for n, scene in enumerate("aabcd")]
        >>> [ref.scene for ref in draw_rows(pool, {"b"}, 5, 2, [])]
        ['a', 'c']
    """
    drawn: list[RowRef] = []
    labels: Counter[str | None] = Counter()
    scenes = set(used_scenes)
    for ref in pool:
        if len(drawn) == count:
            break
        if ref.scene in scenes or ref.label in exclude or labels[ref.label] >= cap:
            continue
        drawn.append(ref)
        scenes.add(ref.scene)
        labels[ref.label] += 1
    return drawn
