"""A training gets a card that holds it, else a core and its memory; what it needs follows from its networks' files."""

import pytest

from rasura.networks.memory import NetworkMemory
from rasura.pipeline.engine.nodes import CannotPlace, Node
from rasura.pipeline.training import placement
from rasura.pipeline.training.settings import DiscriminatorSettings, RemoverSettings, build_training_settings

SDXL_UNET, VAE = 2_567_000_000, 83_000_000


@pytest.fixture
def base(tmp_path, monkeypatch):
    """A folder in SDXL's layout whose files have the parameters of the real ones."""
    counts = {"unet": SDXL_UNET, "vae": VAE}
    monkeypatch.setattr(placement, "list_diffusers_files", lambda folder: {"weights": folder})
    monkeypatch.setattr(
        placement, "count_parameters", lambda paths, without=(): sum(counts[path.name] for path in paths)
    )
    return tmp_path


def place(monkeypatch, memory, nodes, workers=1):
    monkeypatch.setattr(placement.Survey, "list_nodes", lambda self, libraries: nodes)
    return placement.place_training(memory, workers)


def test_all_weights_need_more_than_a_lora_and_a_smaller_batch_less(base):
    """The whole UNet has sixteen bytes a parameter on top; a LoRA of rank 64 a twelfth of that; each of several workers
    has its share of the batch."""
    sizes = {}
    for name, settings, workers in (
        ("all", {}, 0),
        ("lora", {"learn": "lora", "rank": 64}, 0),
        ("four", {"learn": "lora", "rank": 64}, 4),
    ):
        config = RemoverSettings(preset="sdxl", base=base, settings={"save_memory": True, **settings}, workers=workers)
        sizes[name] = placement.estimate_remover_training(config, build_training_settings(config, 0, tune=False))
    state = 16 * SDXL_UNET * 1.15
    assert sizes["all"].gpu_bytes - sizes["lora"].gpu_bytes == pytest.approx(
        state * (1 - 196.8e6 / SDXL_UNET), rel=0.01
    )
    assert sizes["four"].gpu_bytes < sizes["lora"].gpu_bytes
    assert sizes["all"].device == "auto"


def test_a_tiny_training_never_takes_a_card(monkeypatch):
    """Beside a card that stands idle it runs on a core, and so does what has no network to train."""
    config = RemoverSettings(preset="tiny")
    memory = placement.estimate_remover_training(config, build_training_settings(config, 0, tune=False))
    judge = placement.estimate_discriminator_training(DiscriminatorSettings(preset="tiny"), 0)
    for need in (memory, judge):
        placed = place(monkeypatch, need, [Node("a", cpus=4, gpus=1, card_bytes=24 * 10**9, memory=32e9)])
        assert (placed.gpus, placed.cpus) == (0, 1)
        assert need.cpu_bytes < 1.5e9


def test_a_card_that_is_too_small_is_not_taken(monkeypatch):
    """Of two nodes the one whose card holds the training; with several workers as many as there is room for."""
    memory = NetworkMemory(30 * 10**9, 60 * 10**9)
    small, large = (Node(id, cpus=8, gpus=2, card_bytes=size, memory=200e9) for id, size in (("s", 24e9), ("l", 80e9)))
    placed = place(monkeypatch, memory, [small, large])
    assert (placed.gpus, placed.node) == (1, "l")
    assert place(monkeypatch, memory, [small, large], workers=2).gpus == 1
    with pytest.raises(CannotPlace, match="3 workers are asked for, and the cluster has room for 2"):
        place(monkeypatch, memory, [small, large], workers=3)
