"""Commands of README and docs that cannot run as they stand in seconds on a laptop: what runs instead, and why.

A command that no entry matches runs as it is written.
"""

import re
from dataclasses import dataclass

INSTALLS = "installs packages or runs the tests themselves; the test checks that the Makefile has the target"
NEEDS_WEIGHTS = (
    "needs weights that are not in the repository; the same values are checked with empty files in their place"
)
NEEDS_SDXL = "needs SDXL-inpainting and a GPU; the command must end with the sentence that names the missing folder"
NEEDS_SD15 = "needs Stable Diffusion 1.5 and a GPU; the command must end with the sentence that names what is missing"
NEEDS_MINUTES = "takes many minutes; the test imports the measurement"


@dataclass(frozen=True)
class Substitution:
    """What runs in place of a command.

    Args:
        pattern: regular expression that the whole command matches.
        command: what runs instead; groups of the pattern as `\\1`.
        reason: why.
        status: exit status that is expected.
        output: text that the output must have.
        kind: "command"; "server": start, wait for an answer, stop; "make": check the target; "cluster": run the
            command against a Ray head and a bucket that the test starts.
    """

    pattern: str
    command: str
    reason: str
    status: int = 0
    output: str = ""
    kind: str = "command"

    def rewrite(self, command: str) -> str:
        """Return what runs in place of a command that the pattern matches."""
        return re.sub(self.pattern, self.command, command)


SUBSTITUTIONS = (
    Substitution(
        r"make demo",
        "rasura check recipes/demo.yaml",
        "installs packages and renders; its recipe is checked",
    ),
    Substitution(
        r"rasura check my-loop.yaml",
        "rasura check my-loop.yaml",
        "needs a run of about a hundred pairs; the command must end with the sentence that names the missing run",
        status=1,
        output="'runs/pairs' is no run",
    ),
    Substitution(
        r"rasura export runs/ober-simulated --format powerpaint --out ober-as-powerpaint",
        "rasura export runs/demo --format powerpaint --out demo-as-powerpaint",
        "needs that run; of the demo, whose pictures are too small for PowerPaint's loaders, it ends by saying so",
        status=1,
        output="a side is under 512 px",
    ),
    Substitution(r"make loop-demo.*", "python -m benchmarks.loop_arms --help", "takes 21 minutes; its help is printed"),
    Substitution(r"make ([a-z-]+)", "", INSTALLS, kind="make"),
    Substitution(
        r"rasura review add-reviewer runs/demo Ann --admin",
        "rasura review add-reviewer runs/demo Dora --admin",
        "the demo's run of the tests has a reviewer Ann with votes already",
    ),
    Substitution(
        r"(rasura discriminator train runs/demo .*)",
        r"\1 --seed 2",
        "the demo's run of the tests has votes on three scenes; with this seed each use of votes gets one of them",
    ),
    Substitution(
        r"rasura review runs/demo( --flow captured)?( --public-url \S+)?",
        r"rasura review runs/demo --port PORT",
        "a server: started on a free port, asked for its page, and stopped",
        kind="server",
    ),
    Substitution(
        r"rasura report runs/demo --serve --port 0",
        "rasura report runs/demo --serve --port PORT",
        "a server: started on a free port, asked for its page, and stopped",
        kind="server",
    ),
    Substitution(
        r"ray job submit --address http://HEAD:8265 (.*)",
        r"ray job submit --address ADDRESS \1",
        "no cluster and no bucket are at hand: a local Ray head and a local S3 server (moto) are started",
        kind="cluster",
    ),
    Substitution(
        r"ray job submit --address http://head:8265 -- rasura loop (\S+) --into s3://\S+",
        r"rasura loop --help",
        "needs SDXL's weights; tests/pipeline/loop/test_loop_places.py submits a loop to a cluster",
    ),
    Substitution(
        r"rasura (review|votes export) s3://.*",
        r"rasura \1 --help",
        "no bucket is at hand; tests/pipeline/loop/test_loop_places.py reviews a round in one",
    ),
    Substitution(
        r"rasura discriminator check my-vlm runs/demo",
        r"rasura discriminator check my-vlm runs/demo",
        "the test's demo is small; the command must end with the sentence that says so",
        status=1,
        output="are too few to check a judge",
    ),
    Substitution(
        r"rasura discriminator calibrate my-vlm .*",
        r"rasura discriminator calibrate --help",
        "no server is at hand; tests/discriminator/test_judges.py asks one",
    ),
    Substitution(
        r"rasura show 3f2a --run (\S+)",
        r"rasura show ID --run \1",
        "ids depend on the pictures: the id of a row of the run is put in",
    ),
    Substitution(
        r"rasura run (recipes/ober-\w+\.yaml) .*",
        r"rasura check \1 --set vars.pairs=my-pairs --set vars.backgrounds=my-photos --set vars.weights=weights",
        NEEDS_WEIGHTS,
    ),
    Substitution(
        r"rasura export runs/ober-simulated --format ober --out FOLDER",
        "rasura export runs/demo --format ober --out exported-as-ober",
        "the run needs weights: the demo's run is exported",
    ),
    Substitution(
        r"(rasura export runs/demo --format ai-toolkit .*) --size 192",
        r"\1 --size 32",
        "the demo's run here is of version 0.1.0, whose pictures are smaller",
    ),
    Substitution(
        r"rasura export runs/demo --out hf://datasets/OWNER/NAME",
        "rasura export --help",
        "needs a token; tests/pipeline/test_hub_push.py pushes to a server that answers as the Hub does",
        output="hf://datasets/OWNER/NAME",
    ),
    Substitution(
        r"rasura export runs/demo --format ober --out published",
        "rasura export runs/demo --format ober --flow captured --flow simulated --out published",
        "the demo's run here is of version 0.1.0, whose dataset had candidates in it",
    ),
    Substitution(
        r"rasura run recipes/inserted.yaml .*",
        r"rasura check recipes/inserted.yaml --set vars.photos=my-photos --set vars.weights=weights",
        "needs PowerPaint's weights; the command must end with the sentence that names what is missing",
        status=1,
        output="powerpaint",
    ),
    Substitution(
        r"rasura run recipes/syn4removal.yaml .*",
        r"rasura check recipes/syn4removal.yaml --set vars.photos=my-photos --set vars.backgrounds=my-photos",
        "needs annotations; the command must end with the sentence that names the missing file",
        status=1,
        output="instances.json",
    ),
    Substitution(
        r"rasura run recipes/cars.yaml --set vars.assets=FOLDER",
        "rasura check recipes/cars.yaml --set vars.assets=assets",
        NEEDS_WEIGHTS,
    ),
    Substitution(r"(rasura remover train .* --base SDXL .*)", r"\1", NEEDS_SDXL, status=1, output="SDXL"),
    Substitution(r"(rasura remover train .* --base SD15 .*)", r"\1", NEEDS_SD15, status=1, output="SD15"),
    Substitution(
        r"python -m benchmarks (\w+)(?: --.*)?",
        r"python -c 'import importlib, benchmarks.__main__ as main; "
        r"""importlib.import_module(main.list_measurements()["\1"])'""",
        NEEDS_MINUTES,
    ),
)

FRAGMENTS = {
    "docs/curation.md": "a list of stages with weights that are not in the repository: the parameters are validated",
    "docs/removers.md": "a list of stages with weights that are not in the repository: the parameters are validated",
}
"""Documents with a YAML block that is not a whole recipe, and why."""


def find_substitution(command: str) -> Substitution | None:
    """Find what runs in place of a command; None where it runs as it is."""
    return next((entry for entry in SUBSTITUTIONS if re.fullmatch(entry.pattern, command)), None)
