"""Distillation of a trained remover into a LoRA that needs four steps: one file that reads from top to bottom.

Latent consistency distillation (arXiv 2310.04378) as RORem does it. A solver follows the guided teacher from a
timestep to the one before; the student's predictions at both are to be the same picture. Teacher and student are one
network, without and with the LoRA; the target is the student itself, without gradient, so no third copy is kept. A
picture x at signal share a is sqrt(a) x0 + sqrt(1 - a) eps throughout.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from rasura.networks.checkpoint import TrainingFailed
from rasura.networks.lora import RANK, RECIPE_TARGETS, add_lora, disable_lora
from rasura.networks.setting_types import Batch, Count, Number, PositiveNumber
from rasura.networks.trainer import OnProgress
from rasura.removers.diffusion.conditioning import Conditioning
from rasura.removers.training.train import (
    Item,
    Learner,
    Settings,
    add_noise,
    create_generators,
    draw_batch,
    draw_noise,
    encode_batch,
    fit,
    predict,
    sort_items,
)

if TYPE_CHECKING:
    import torch

SIGMA_DATA = 0.5


@dataclass(frozen=True)
class Distillation(Settings):
    """Settings of a distillation, beside a training's. Defaults are RORem's: 8 processes of 16 make its batch.

    weakest, strongest: range of the teacher's guidance w, which is drawn for each picture.
    solver_steps: DDIM steps between noise and picture; the scheduler that runs the LoRA has to use the same ones.
    scaling: of the timestep in the boundary's scalings. loss: squared, or Huber's around `huber`.
    """

    steps: Count = 20_000
    batch: Batch = 128
    learn: Literal["all", "lora"] = "lora"
    rank: Count = RANK
    weakest: Number = 3.0
    strongest: Number = 10.0
    solver_steps: Annotated[int, Field(ge=1, le=1000)] = 50
    scaling: PositiveNumber = 10.0
    loss: Literal["l2", "huber"] = "l2"
    huber: PositiveNumber = 1e-3

    def check(self) -> None:
        """Check that nothing is set that a distillation does not have.

        Raises:
            TrainingFailed
        """
        if (self.objective, self.learn, self.mask_loss) != ("epsilon", "lora", 0.0):
            raise TrainingFailed(
                f"objective '{self.objective}', learn '{self.learn}' and mask_loss {self.mask_loss}: a distillation "
                "learns a LoRA of a network that predicts noise, without a mask loss"
            )
        if (self.inside, self.outside) != (1.0, 1.0):
            raise TrainingFailed(f"inside {self.inside} and outside {self.outside}: a distillation has no such weights")
        if self.weakest > self.strongest:
            raise TrainingFailed(f"weakest {self.weakest} is above strongest {self.strongest}: swap them")


def distill(
    learner: Learner,
    guidance: Conditioning,
    items: Sequence[Item],
    settings: Distillation,
    out: Path,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Distill a remover and write the LoRA to `out`. Called again on the same folder it goes on.

    Args:
        learner: the teacher, and with the LoRA the student; its prompt (the empty one) is the student's.
        guidance: the embeddings towards and away from which the teacher is guided.

    Returns:
        A summary of the distillation.

    Raises:
        TrainingFailed: as `train`; or settings that a distillation does not have.
    """
    import torch

    settings.check()
    items = sort_items(items)
    if learner.lora:
        raise TrainingFailed("the teacher is a UNet with a LoRA: fold it in first (removers.training.sdxl.fuse_lora)")
    teachers = (
        replace(learner, tokens=guidance.tokens, pooled=guidance.get_pooled()[0]),
        replace(learner, tokens=guidance.negative_tokens, pooled=guidance.get_pooled()[1]),
    )
    alphas = learner.alphas.to(learner.device)
    solver_times = list_solver_times(len(alphas), settings.solver_steps).to(learner.device)
    gap, dtype = len(alphas) // settings.solver_steps, learner.dtype
    add_lora(learner.unet, settings.rank, settings.seed, RECIPE_TARGETS)

    def compute_loss(network: Any, step: int, rank: int, world: int) -> "torch.Tensor":
        # a noisy picture at one of the solver's timesteps, and the strength of the guidance
        crops, positions = draw_batch(items, settings, step, rank, world)
        clean, hole, source = encode_batch(learner, settings, crops)
        condition = torch.cat([hole, source], dim=1)
        noise, late, strength = draw_start(clean, solver_times, settings, positions)
        early = (late - gap).clamp(min=0)
        noisy = add_noise(clean, noise, alphas[late])
        noisy_input = noisy.to(dtype)

        # one step of the solver along the guided teacher, and the student's prediction there
        with torch.no_grad():
            with disable_lora(learner.unet):
                plus, minus = (predict(learner.unet, t, settings.size, noisy_input, condition, late) for t in teachers)
                eps = guide(plus, minus, strength)
            earlier = take_ddim_step(noisy, eps, alphas[late], alphas[early])
            student_eps = predict(learner.unet, learner, settings.size, earlier.to(dtype), condition, early)
            target = apply_consistency(earlier, student_eps, early, alphas[early], settings.scaling)

        # the student's prediction before the step
        student_eps = predict(network, learner, settings.size, noisy_input, condition, late)
        picture = apply_consistency(noisy, student_eps, late, alphas[late], settings.scaling)
        return compute_distance(picture, target, settings)

    return fit(learner, items, settings, out, compute_loss, on_progress)


def draw_start(
    clean: "torch.Tensor", solver_times: "torch.Tensor", settings: Distillation, positions: Sequence[int]
) -> tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]:
    """Draw noise like `clean` (n, c, h, w), timesteps of the solver (n,) and strengths of the guidance (n,)."""
    import torch

    generators = create_generators(settings, positions)
    noise = draw_noise(generators, clean)
    indices = torch.stack([torch.randint(len(solver_times), (), generator=generator) for generator in generators])
    strength = torch.stack([torch.rand((), generator=generator) for generator in generators]).to(clean.device)
    strength = settings.weakest + (settings.strongest - settings.weakest) * strength
    return noise, solver_times[indices.to(solver_times.device)], strength


def list_solver_times(count: int, steps: int) -> "torch.Tensor":
    """Return the solver's timesteps (steps,), rising: every (count / steps)-th, the last one of all included."""
    import torch

    return torch.arange(1, steps + 1) * (count // steps) - 1


def remove_noise(noisy: "torch.Tensor", eps: "torch.Tensor", signal: "torch.Tensor") -> "torch.Tensor":
    """Return the picture x0 (n, c, h, w) that x is a noisy version of, if `eps` is its noise; `signal` (n,)."""
    share = signal.float().view(-1, 1, 1, 1)
    return (noisy.float() - (1 - share).sqrt() * eps.float()) / share.sqrt()


def take_ddim_step(
    noisy: "torch.Tensor", eps: "torch.Tensor", signal: "torch.Tensor", next_signal: "torch.Tensor"
) -> "torch.Tensor":
    """Take a step of DDIM without noise, from one signal share (n,) to another.

    Source: arXiv 2010.02502, eq. 12 at sigma = 0.
    """
    return add_noise(remove_noise(noisy, eps, signal), eps, next_signal)


def guide(towards: "torch.Tensor", away: "torch.Tensor", strength: "torch.Tensor") -> "torch.Tensor":
    """Return eps+ + w (eps+ - eps-), w (n,): the papers' convention, in which w = 0 is no guidance."""
    towards, away = towards.float(), away.float()
    return towards + strength.float().view(-1, 1, 1, 1) * (towards - away)


def compute_boundary(times: "torch.Tensor", scaling: float) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Return c_skip and c_out (n, 1, 1, 1) of timesteps (n,): 1 and 0 at timestep 0, nearly 0 and 1 soon after."""
    scaled = times.float().view(-1, 1, 1, 1) * scaling
    spread = scaled**2 + SIGMA_DATA**2
    return SIGMA_DATA**2 / spread, scaled / spread.sqrt()


def apply_consistency(
    noisy: "torch.Tensor", eps: "torch.Tensor", times: "torch.Tensor", signal: "torch.Tensor", scaling: float
) -> "torch.Tensor":
    """Apply the consistency function f = c_skip x + c_out x0: at timestep 0 it is x, whatever is predicted."""
    skip, out = compute_boundary(times, scaling)
    return skip * noisy.float() + out * remove_noise(noisy, eps, signal)


def compute_distance(picture: "torch.Tensor", target: "torch.Tensor", settings: Distillation) -> "torch.Tensor":
    """Return the mean of d², or of sqrt(d² + c²) - c."""
    squared = (picture - target) ** 2
    distance = squared if settings.loss == "l2" else (squared + settings.huber**2).sqrt() - settings.huber
    return distance.mean()
