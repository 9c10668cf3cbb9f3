"""The memory that each worker of a training needs, and where the cluster has room for it."""

from rasura.networks.memory import NetworkMemory, count_parameters, estimate_training
from rasura.networks.pretrained import list_diffusers_files
from rasura.pipeline.engine.survey import Survey
from rasura.pipeline.engine.tasks import TaskPlacement, place_task
from rasura.pipeline.training.settings import DiscriminatorSettings, RemoverSettings, build_discriminator_settings
from rasura.removers.training.catdiffusion_settings import CatSettings, measure_training
from rasura.removers.training.objectclear import find_image_encoder
from rasura.removers.training.train import Settings

TINY_PARAMETERS = 2_000_000
"""Of a network of preset `tiny`, at most."""
LORA_SHARE = 0.0012
"""Parameters of a LoRA on a UNet's attentions, for each rank, as a share of the UNet's: SDXL's has 196.8 M at 64."""


def estimate_remover_training(config: RemoverSettings, settings: Settings) -> NetworkMemory:
    """Estimate the memory that each worker of a remover's training needs.

    Examples:
        >>> config = RemoverSettings(preset="tiny")
        >>> estimate_remover_training(config, Settings(batch=16, size=64)).device
        'cpu'
    """
    pixels = settings.batch // max(1, config.workers) * max(settings.size, settings.large) ** 2
    dtype = "float32" if settings.precision == "no" else "bfloat16"
    if config.preset == "tiny" or config.base is None:
        return _estimate_tiny(pixels)
    if isinstance(settings, CatSettings):
        loaded, trained, pixels = measure_training(config.base, config.image_encoder, settings.stage, pixels)
        return estimate_training(loaded, trained, pixels, dtype, checkpointed=settings.save_memory)
    unet = count_parameters(list_diffusers_files(config.base / "unet").values())
    folders = [config.base / "vae", *filter(None, [config.image_encoder])]
    others = sum(count_parameters(list_diffusers_files(folder).values()) for folder in folders)
    if config.preset == "objectclear":
        encoder = find_image_encoder(config.base, config.image_encoder)
        others += count_parameters(list_diffusers_files(encoder).values())
    trained = unet if settings.learn == "all" else int(unet * LORA_SHARE * settings.rank)
    return estimate_training(unet + others, trained, pixels, dtype, checkpointed=settings.save_memory)


def estimate_discriminator_training(config: DiscriminatorSettings, seed: int) -> NetworkMemory:
    """Estimate the memory that a discriminator's training needs: it has half a UNet, and learns a LoRA."""
    shape, settings = build_discriminator_settings(config.preset, seed, config.settings)
    pixels = settings.batch * shape.size**2
    if config.preset == "tiny" or config.base is None or config.backend != "network":
        return _estimate_tiny(pixels)
    files = [*list_diffusers_files(config.base / "unet").values(), *list_diffusers_files(config.base / "vae").values()]
    parameters = count_parameters(files, without=("up_blocks.", "conv_out.", "decoder."))
    trained = parameters if settings.learn == "all" else int(parameters * LORA_SHARE * 4)
    dtype = "float32" if settings.precision == "no" else "bfloat16"
    return estimate_training(parameters, trained, pixels // 2, dtype, checkpointed=settings.save_memory)


def _estimate_tiny(pixels: int) -> NetworkMemory:
    """Estimate the memory of a tiny network, which runs on a CPU; a tenth of SDXL's channels has a tenth as much."""
    return estimate_training(TINY_PARAMETERS, TINY_PARAMETERS, pixels // 10, "float32", "cpu")


def place_training(memory: NetworkMemory, workers: int = 1, gpu_memory_gb: float | None = None) -> TaskPlacement:
    """Place the workers of a training on the cluster of the Ray that is initialised.

    Args:
        memory: that each needs.
        gpu_memory_gb: GB of each GPU that may be used; None for what the cards have.

    Raises:
        CannotPlace: there is no room for them.
    """
    libraries = None if memory.device == "cpu" else memory.libraries
    return place_task("training", memory, Survey(gpu_memory_gb).list_nodes(libraries), workers)
