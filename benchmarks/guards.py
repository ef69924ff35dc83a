"""What keeps a fine-tuned model from forgetting: one change at a time.

    python benchmarks/guards.py --data DATA --models RUN --work WORK --record

Stacks, held-out patients and corrected slices as in ``fine_tune.py``. Each training is looked
at with several shares of what it learnt (`blend`), which costs nothing but the look.
"""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from _bench import finish, shared_options
from fine_tune import FULL, Bench, measured, picked
from gitract.corrections import Corrections
from gitract.fine_tune import FineTuneSettings
from gitract.fine_tune.lesson import Lesson, lesson_of
from gitract.fine_tune.training import blended, trained
from gitract.metrics import mean_known

BLENDS = (0.3, 0.4, 0.5, 0.7, 1.0)
VARIANTS: dict[str, dict[str, Any]] = {
    "nothing": {"remembered": 0},
    "2 remembered slices": {"remembered": 2},
    "4 remembered slices": {"remembered": 4},
    "2 remembered slices, decoder only": {"remembered": 2, "decoder": True},
}


def learnt(lesson: Lesson, *, decoder: bool) -> nn.Module:
    network = copy.deepcopy(lesson.start)
    only = None
    if decoder:
        only = [p for name, p in network.named_parameters() if "encoder." not in name]
    drawer = lesson.drawer(lesson.places)
    for _ in trained(network, drawer, lesson.settings.steps, lesson.device, only=only):
        pass
    return network


def results_of(bench: Bench, day: str, name: str) -> list[dict[str, Any]]:
    """One for each blend; kept in a file."""
    file = bench.results / f"guards-{day}-{name.replace(' ', '_')}.json"
    if file.exists():
        return list(json.loads(file.read_text()))
    stack = next(stack for stack in bench.stacks if stack.name == day)
    slices = picked(stack, bench.segmented(day), FULL, "queue", 0)
    variant = VARIANTS[name]
    settings = FineTuneSettings(steps=bench.options.steps, remembered=variant["remembered"])
    lesson = lesson_of(
        [Corrections(stack.run.scan, stack.run.truth, tuple(slices))],
        model=stack.model, home=bench.options.work / "home", device=bench.device,
        settings=settings, earlier=(),
    )  # fmt: skip
    elsewhere = bench.elsewhere(day)
    before = measured(lesson.before, stack, lesson.config, slices, elsewhere)
    network = learnt(lesson, decoder=variant.get("decoder", False))
    results = []
    for blend in BLENDS:
        between = blended(lesson.start, network, blend)
        after = measured(between, stack, lesson.config, slices, elsewhere)
        results.append({"blend": blend, "before": before, "after": after})
    file.write_text(json.dumps(results, indent=1))
    return results


def gain(result: dict[str, Any], what: str) -> float | None:
    before, after = result["before"][what], result["after"][what]
    if isinstance(before, dict):
        before, after = mean_known(before.values()), mean_known(after.values())
    return None if before is None or after is None else after - before


def main() -> None:
    parser = shared_options(__doc__)
    for name in ("--data", "--models", "--work"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--patients", type=lambda text: text.split(","), default=None)
    parser.add_argument("--steps", type=int, default=FineTuneSettings().steps)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    bench = Bench(options)
    days = [stack.name for stack in bench.stacks]
    rows = []
    for name in VARIANTS:
        found = [results_of(bench, day, name) for day in days]
        for number, blend in enumerate(BLENDS):
            ones = [results[number] for results in found]
            means = [
                mean_known(gain(one, what) for one in ones)
                for what in ("rest", "other day", "strangers", "learnt from")
            ]
            cells = ["–" if value is None else f"{value:+.3f}" for value in means]
            rows.append([name, f"{blend:g}", *cells])
    finish(
        "What keeps a fine-tuned model from forgetting",
        ["Guard", "Blend", "rest", "other day", "patients unknown to it",
         "patients it learnt from"],
        rows,
        f"Change of the mean Dice, over {', '.join(days)}; {FULL} slices chosen by the queue, "
        f"{options.steps} steps. Blend: where the candidate stands between the old weights (0) "
        "and the trained ones (1).",
        options,
    )  # fmt: skip


if __name__ == "__main__":
    main()
