"""Distillation of a trained remover into a LoRA that needs four steps: one file that reads from top to bottom.

Latent consistency distillation (arXiv 2310.04378) as RORem does it. A solver follows the guided teacher from a
timestep to the one before; what the student says there and here is to be the same picture. Teacher and student are one
network, without and with the LoRA; the target is the student itself, without gradient, so no third copy is kept. A
picture x at signal share a is sqrt(a) x0 + sqrt(1 - a) eps throughout.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rasura.networks.checkpoint import TrainingFailed
from rasura.networks.lora import RANK, RECIPE_TARGETS
from rasura.removers.conditioning import Conditioning
from rasura.removers.training.train import (
    Item,
    Learner,
    Settings,
    add_lora,
    batch,
    call,
    in_order,
    latents,
    made_with,
    makers,
    noised,
    stored,
)
from rasura.removers.training.train_loop import descend

if TYPE_CHECKING:
    import torch

SIGMA_DATA = 0.5


@dataclass(frozen=True)
class Distillation(Settings):
    """How it is distilled; the rest as in a training. Defaults are RORem's: 8 processes of 16 make its batch.

    weakest, strongest: the teacher's guidance w, as much on top of its prompt; drawn anew for each picture.
    solver_steps: DDIM steps between noise and picture; the scheduler that runs the LoRA has to use the same ones.
    scaling: of the timestep in the boundary's scalings. loss: squared, or Huber's around `huber`.
    """

    steps: int = 20_000
    batch: int = 128
    learn: Literal["all", "lora"] = "lora"
    rank: int = RANK
    weakest: float = 3.0
    strongest: float = 10.0
    solver_steps: int = 50
    scaling: float = 10.0
    loss: Literal["l2", "huber"] = "l2"
    huber: float = 1e-3

    def check(self) -> None:
        """Raises TrainingFailed where something is asked for that a distillation is not."""
        if (self.objective, self.learn, self.mask_loss) != ("epsilon", "lora", 0.0):
            raise TrainingFailed(
                f"objective '{self.objective}', learn '{self.learn}' and mask_loss {self.mask_loss}: a distillation "
                "learns a LoRA of a network that predicts noise, without a mask loss"
            )
        if (self.inside, self.outside) != (1.0, 1.0):
            raise TrainingFailed(f"inside {self.inside} and outside {self.outside}: a distillation has no such weights")


def distill(
    learner: Learner, guides: Conditioning, given: Sequence[Item], settings: Distillation, out: Path
) -> dict[str, Any]:
    """Distils a remover, writes the LoRA to `out`, and says how it went. Called again on the same folder it goes on.

    Args:
        learner: the teacher, and with the LoRA the student; its prompt (the empty one) is the student's.
        guides: what the teacher is guided to and from.

    Raises:
        TrainingFailed: as `train`; or settings of something else than a distillation.
    """
    import torch

    settings.check()
    ordered = in_order(given)
    if learner.lora:
        raise TrainingFailed("the teacher is a UNet with a LoRA: fold it in first (train_sdxl.folded)")
    towards = replace(learner, tokens=guides.tokens, pooled=guides.pooled)
    away = replace(learner, tokens=guides.negative_tokens, pooled=guides.negative_pooled)
    alphas = learner.alphas.to(learner.device)
    stops = solver_times(len(alphas), settings.solver_steps).to(learner.device)
    gap, dtype = len(alphas) // settings.solver_steps, learner.dtype
    add_lora(learner.unet, settings.rank, settings.seed, RECIPE_TARGETS)

    def loss_of(model: Any, step: int, rank: int, world: int) -> "torch.Tensor":
        # a noisy picture at one of the solver's timesteps, and the strength of the guidance
        views, places = batch(ordered, settings, step, rank, world)
        clean, hole, known = latents(learner, settings, views)
        shown = torch.cat([hole, known], dim=1)
        drawn = makers(settings, places)
        noise = torch.stack([torch.randn(clean.shape[1:], generator=one) for one in drawn]).to(clean)
        late = stops[torch.stack([torch.randint(len(stops), (), generator=one) for one in drawn]).to(stops.device)]
        strength = torch.stack([torch.rand((), generator=one) for one in drawn]).to(clean.device)
        strength = settings.weakest + (settings.strongest - settings.weakest) * strength
        early = (late - gap).clamp(min=0)
        noisy = noised(clean, noise, alphas[late])

        # where the guided teacher leads in one step of the solver, and what the student says there
        with torch.no_grad():
            with without_lora(learner.unet):
                eps = guided(
                    call(learner.unet, towards, settings.size, noisy.to(dtype), shown, late),
                    call(learner.unet, away, settings.size, noisy.to(dtype), shown, late),
                    strength,
                )
            earlier = ddim_step(noisy, eps, alphas[late], alphas[early])
            said = call(learner.unet, learner, settings.size, earlier.to(dtype), shown, early)
            target = consistent(earlier, said, early, alphas[early], settings.scaling)

        # what it says here
        said = call(model, learner, settings.size, noisy.to(dtype), shown, late)
        return distance(consistent(noisy, said, late, alphas[late], settings.scaling), target, settings)

    about = {"steps": settings.steps, "triplets": len(ordered), "settings": asdict(settings)}
    descend(
        learner.unet, learner.device, dtype, settings, out, made_with(learner, ordered, settings), loss_of,
        lambda tensors: learner.save(learner, out, stored(tensors), about),
    )  # fmt: skip
    return about


def solver_times(count: int, steps: int) -> "torch.Tensor":
    """The solver's timesteps (steps,), rising: every (count / steps)-th, the last one of all included."""
    import torch

    return torch.arange(1, steps + 1) * (count // steps) - 1


def origin(noisy: "torch.Tensor", eps: "torch.Tensor", signal: "torch.Tensor") -> "torch.Tensor":
    """The picture x0 (n, c, h, w) that x is a noisy version of, if `eps` is its noise; `signal` (n,)."""
    share = signal.float().view(-1, 1, 1, 1)
    return (noisy.float() - (1 - share).sqrt() * eps.float()) / share.sqrt()


def ddim_step(
    noisy: "torch.Tensor", eps: "torch.Tensor", signal: "torch.Tensor", next_signal: "torch.Tensor"
) -> "torch.Tensor":
    """DDIM without noise (arXiv 2010.02502, eq. 12 at sigma = 0), from one signal share (n,) to another."""
    return noised(origin(noisy, eps, signal), eps, next_signal)


def guided(towards: "torch.Tensor", away: "torch.Tensor", strength: "torch.Tensor") -> "torch.Tensor":
    """eps+ + w (eps+ - eps-), w (n,): the papers' convention, in which w = 0 is no guidance."""
    towards, away = towards.float(), away.float()
    return towards + strength.float().view(-1, 1, 1, 1) * (towards - away)


def boundary(times: "torch.Tensor", scaling: float) -> tuple["torch.Tensor", "torch.Tensor"]:
    """c_skip and c_out (n, 1, 1, 1) of timesteps (n,): 1 and 0 at timestep 0, nearly 0 and 1 soon after."""
    scaled = times.float().view(-1, 1, 1, 1) * scaling
    spread = scaled**2 + SIGMA_DATA**2
    return SIGMA_DATA**2 / spread, scaled / spread.sqrt()


def consistent(
    noisy: "torch.Tensor", eps: "torch.Tensor", times: "torch.Tensor", signal: "torch.Tensor", scaling: float
) -> "torch.Tensor":
    """The consistency function f = c_skip x + c_out x0: at timestep 0 the picture itself, whatever is predicted."""
    skip, out = boundary(times, scaling)
    return skip * noisy.float() + out * origin(noisy, eps, signal)


def distance(said: "torch.Tensor", target: "torch.Tensor", settings: Distillation) -> "torch.Tensor":
    """Mean of d², or of sqrt(d² + c²) - c."""
    squared = (said - target) ** 2
    each = squared if settings.loss == "l2" else (squared + settings.huber**2).sqrt() - settings.huber
    return each.mean()


@contextmanager
def without_lora(unet: Any) -> Iterator[None]:
    """The network as it was before `add_lora`, while it lasts."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in unet.modules() if isinstance(module, BaseTunerLayer)]
    for one in layers:
        one.enable_adapters(False)
    try:
        yield
    finally:
        for one in layers:
            one.enable_adapters(True)
