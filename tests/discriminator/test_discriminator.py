"""The discriminator's network: published sizes and names, a head that learns, scores that are the same every time."""

from dataclasses import replace

import numpy as np
import pytest
from support import tiny_models
from support.discriminator_candidates import SMALL, make_candidate, make_picture

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("peft")

from safetensors.torch import save_file

from rasura.discriminator import heads, import_rorem, model, network
from rasura.discriminator.crops import compute_window, cut_crop, flip, rotate
from rasura.discriminator.network import HEAD, Config, WrongDiscriminator
from rasura.networks import lora, unet_config
from rasura.networks.pca_codec import Pca, Vae

pytestmark = pytest.mark.torch

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def codec():
    return Pca.fit([make_picture(k) for k in range(12)], network.TINY.channels)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny SDXL-inpainting folder."""
    return tiny_models.sdxl_folder(tmp_path_factory.mktemp("base") / "sdxl")


@pytest.fixture
def prompt():
    generator = torch.Generator().manual_seed(1)
    return {"tokens": torch.randn(1, 77, 64, generator=generator), "pooled": torch.randn(1, 32, generator=generator)}


def inputs(count=2, channels=network.TINY.channels, side=16, tokens=64, pooled=32):
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(count, 1, side, side)
    mask[..., 4:9, 5:8] = 1
    shape = (count, channels, side, side)
    edited, source = (torch.randn(shape, generator=generator) for _ in range(2))
    return (
        edited,
        mask,
        source,
        torch.randn(1, 77, tokens, generator=generator),
        torch.randn(1, pooled, generator=generator),
    )


def test_sizes_are_the_published_ones():
    """At SDXL's size, without memory: rank 4 on the attentions of down and middle blocks is 2,850,816 numbers, RORem's
    head 78,656,001 in 14 tensors, and no up block is there."""
    full = network.build(network.ROREM, "meta")
    shapes = network.list_lora_shapes(full, 4)
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == network.LORA_PARAMETERS == 2_850_816
    head = getattr(full, HEAD)
    assert sum(value.numel() for value in head.parameters()) == heads.ROREM_PARAMETERS == 78_656_001
    assert len(head.state_dict()) == 14
    names = set(full.state_dict())
    assert not any(name.startswith(("up_blocks", "conv_out", "conv_norm_out")) for name in names)
    assert full.conv_in.weight.shape == (320, 9, 3, 3)
    assert unet_config.SDXL_UNET == tiny_models.SDXL_UNET


def test_it_is_the_first_half_of_the_unet():
    """The middle block's map is the one diffusers' whole UNet computes for the same input, to the bit; all tensors but
    the head's have the UNet's names."""
    torch.manual_seed(0)
    unet = tiny_models.unet()
    judge = network.build(Config(unet=tiny_models.UNET, feed="source", size=64))
    own = {name: value for name, value in unet.state_dict().items() if name in judge.state_dict()}
    assert {name for name in judge.state_dict() if not name.startswith(HEAD)} == set(own)
    judge.load_state_dict(own, strict=False)
    outputs = {}
    for name, net in (("unet", unet), ("judge", judge)):
        net.mid_block.register_forward_hook(lambda module, given, out, name=name: outputs.__setitem__(name, out))
    edited, mask, source, tokens, pooled = inputs(channels=4, side=8)
    with torch.no_grad():
        judge(edited, mask, source, tokens, pooled)
        unet(
            torch.cat([edited, mask, source], 1),
            0,
            tokens.expand(2, -1, -1),
            added_cond_kwargs={
                "text_embeds": pooled.expand(2, -1),
                "time_ids": torch.tensor([[64, 64, 0, 0, 64, 64]] * 2),
            },
        )
    assert torch.equal(outputs["unet"], outputs["judge"])


def test_the_head_learns():
    """Frozen as RORem's release froze it, the head's tensors stay; named in `modules_to_save` they have gradients and
    move in one step, its norm's weights away from 1, while the frozen base does not."""
    from peft import LoraConfig, inject_adapter_in_model

    upstream = network.build(network.TINY)
    inject_adapter_in_model(LoraConfig(r=4, lora_alpha=4, target_modules=list(lora.ATTENTIONS)), upstream)
    assert not any(value.requires_grad for value in getattr(upstream, HEAD).parameters())  # the trap

    judge = network.build(network.TINY)
    before = {name: value.clone() for name, value in judge.state_dict().items()}
    args = inputs()
    untrained = judge(*args)
    network.add_lora(judge)
    assert torch.equal(judge(*args), untrained)  # a new LoRA changes nothing
    learning = [value for value in judge.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-2)
    for _ in range(2):  # a LoRA's first half only moves once its second half is not zero
        optimizer.zero_grad()
        judge(*args).square().sum().backward()
        optimizer.step()
    kept = lora.collect_trainable(judge)
    head = {name: value for name, value in kept.items() if name.startswith(HEAD)}
    assert len(head) == 12
    assert all(not torch.equal(value, before[name]) for name, value in head.items())
    assert not torch.equal(kept[f"{HEAD}.norms.1.weight"], torch.ones(64))
    assert len(kept) == 32 + 12
    assert {name.rsplit(".lora_", 1)[1] for name in kept if ".lora_" in name} == {"A.weight", "B.weight"}
    after = lora.compute_plain_state(judge)
    assert set(after) == set(before)
    assert torch.equal(after["conv_in.weight"], before["conv_in.weight"])
    plain = network.build(network.TINY)
    plain.load_state_dict(after)
    assert torch.allclose(plain(*args), judge(*args), atol=1e-5)


def test_our_head_takes_any_size_and_weighs_the_hole():
    """Maps of any shape give one number a picture; what lies in the hole counts more than the same thing elsewhere; a
    hole smaller than a cell still counts, as does one that fills the picture; RORem's head refuses another map than
    16 x 16."""
    torch.manual_seed(0)
    head = heads.make_pooled_head((16, 32), 8)
    for height, width in ((8, 8), (14, 10), (32, 32)):
        mask = torch.zeros(2, 1, height, width)
        mask[0, :, 3, 3] = 1
        mask[1] = 1
        levels = [torch.randn(2, 16, height, width), torch.randn(2, 32, height // 2, width // 2)]
        answer = head(levels, mask)
        assert answer.shape == (2,)
        assert torch.isfinite(answer).all()
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:8, 4:8] = 1
    still = [torch.zeros(1, 16, 16, 16), torch.zeros(1, 32, 8, 8)]
    thing = torch.randn(1, 16, 1, 1) * 3
    inside, outside = (still[0].clone() for _ in range(2))
    inside[..., 4:8, 4:8] = thing
    outside[..., 11:15, 11:15] = thing
    changes = [(head([one, still[1]], mask) - head(still, mask)).abs() for one in (inside, outside)]
    assert changes[0] > 2 * changes[1]
    theirs = heads.make_rorem_head(32, 8)
    assert theirs([torch.randn(2, 32, 16, 16)], torch.ones(2, 1, 64, 64)).shape == (2,)
    with pytest.raises(ValueError, match="512 px"):
        theirs([torch.randn(2, 32, 32, 32)], torch.ones(2, 1, 128, 128))


def test_rorems_head_is_a_plain_sequential():
    """Its output is that of the ten layers in a row, so the published tensors mean here what they meant there."""
    torch.manual_seed(0)
    head = heads.make_rorem_head(32, 8)
    features = torch.randn(2, 32, 16, 16)
    row = features
    for layer in head:
        row = layer(row)
    assert torch.equal(head([features], torch.ones(2, 1, 64, 64)), row.squeeze(3).squeeze(2).squeeze(1))
    assert [type(layer).__name__ for layer in head] == ["Conv2d", "GroupNorm", "SiLU"] * 3 + ["Conv2d"]


def test_scores_are_the_same_alone_in_a_batch_and_after_saving(codec, tmp_path):
    """A candidate's score does not depend on what it is scored with, on the order, or on the run; a
    discriminator that was saved and loaded gives the same; the sizes of the pictures do not matter."""
    judge = model.create_tiny(codec, seed=3)
    judge.network.eval()
    cases = [make_candidate(k, 64 + 16 * k, 80) for k in range(6)]
    together = judge.compute_scores(*zip(*cases, strict=True))
    alone = np.array([judge.compute_scores(*([one] for one in case))[0] for case in cases])
    assert np.array_equal(together, alone)
    assert np.array_equal(judge.compute_scores(*zip(*cases[::-1], strict=True))[::-1], together)
    assert len(set(together)) == 6
    model.save(judge, tmp_path / "judge", lora.compute_plain_state(judge.network), {"steps": 0}, is_complete=True)
    again = model.load(tmp_path / "judge", device="cpu")
    assert np.array_equal(again.compute_scores(*zip(*cases, strict=True)), together)
    assert again.about == {"steps": 0}
    assert set(model.list_files(tmp_path / "judge")) == {
        "judge.json",
        "weights.safetensors",
        "prompt.safetensors",
        "codec.safetensors",
    }


def test_several_looks_are_averaged(codec, tmp_path):
    """A discriminator that looks four times gives the mean logit of the view as it is, mirrored, upside down
    and both, so that a mirrored candidate scores the same; it still looks so after saving; five looks are
    refused."""
    judge = model.create_tiny(codec, replace(network.TINY, looks=4), seed=3)
    judge.network.eval()
    one = judge.preprocess(*make_candidate(1))
    alone = replace(judge, config=network.TINY)
    each = alone.compute_logits([one, flip(one), rotate(one, 2), flip(rotate(one, 2))])
    assert judge.compute_logits([one])[0] == pytest.approx(each.mean(), abs=1e-6)
    assert judge.compute_logits([flip(one)])[0] == pytest.approx(each.mean(), abs=1e-6)
    model.save(judge, tmp_path / "judge", lora.compute_plain_state(judge.network), {}, is_complete=True)
    assert np.array_equal(
        model.load(tmp_path / "judge", device="cpu").compute_logits([one, one]), judge.compute_logits([one, one])
    )
    with pytest.raises(ValueError, match="looks is 5"):
        replace(judge, config=replace(network.TINY, looks=5)).compute_logits([one])


def test_a_lora_on_the_published_base_is_kept_alone(base, prompt, tmp_path):
    """On SDXL-inpainting only LoRA and head are written; loading needs the base, reads no tensor of its up blocks, and
    gives the trained discriminator's scores, the VAE's mode and no text encoder in memory."""
    judge = model.create_on_base(SMALL, base, prompt, device="cpu", batch=2)
    assert isinstance(judge.codec, Vae)
    case = [[one] for one in make_candidate()]
    network.add_lora(judge.network)
    with torch.no_grad():
        for value in judge.network.parameters():
            if value.requires_grad:
                value += 0.02 * torch.randn(value.shape, generator=torch.Generator().manual_seed(2))
    tensors = lora.collect_trainable(judge.network)
    model.save(judge, tmp_path / "judge", tensors, {}, is_complete=False)
    again = model.load(tmp_path / "judge", base, device="cpu", batch=2)
    assert np.allclose(again.compute_scores(*case), judge.compute_scores(*case), atol=1e-5)
    assert np.array_equal(again.compute_scores(*case), again.compute_scores(*case))
    assert not any("up_blocks" in name for name in again.network.state_dict())
    assert not hasattr(again, "text_encoder")
    with pytest.raises(WrongDiscriminator, match="name the folder"):
        model.load(tmp_path / "judge", device="cpu")
    assert any(name.startswith("base/unet/") for name in model.list_files(tmp_path / "judge", base))


def test_wrong_judges_are_one_clear_error(base, prompt, codec, tmp_path):
    """No discriminator in a folder, a base without some tensor, a LoRA for another width, a codec of another
    width: each is told by name, and a LoRA that does not fit leaves the network as it was."""
    with pytest.raises(WrongDiscriminator, match=r"no judge\.json"):
        model.load(tmp_path)
    with pytest.raises(WrongDiscriminator, match="lacks"):
        model.create_on_base(SMALL, tmp_path, prompt, device="cpu")
    with pytest.raises(WrongDiscriminator, match="codec has 12"):
        model.create_tiny(Pca.fit([make_picture(k) for k in range(4)], channels=12))
    judge = network.build(network.TINY)
    before = judge.state_dict()["conv_in.weight"].clone()
    shapes = network.list_lora_shapes(judge, 4)
    tensors = {name: torch.ones(shape) for name, shape in shapes.items()}
    tensors[max(tensors)] = torch.ones(7, 4)
    first = next(iter(judge.parameters())).clone()
    with pytest.raises(lora.WrongLora, match="another base"):
        lora.fuse(judge, tensors)
    assert torch.equal(judge.state_dict()["conv_in.weight"], before)
    assert torch.equal(next(iter(judge.parameters())), first)


def test_rorems_files_are_read_key_by_key(tmp_path, monkeypatch, prompt):
    """Its LoRA in diffusers' layout and its head's pickle of tensors become a discriminator's folder; a tensor
    that is missing, unknown, or of another shape is named; a pickle that holds more than tensors is not opened."""
    monkeypatch.setattr(network, "ROREM", Config(unet=tiny_models.UNET, head="rorem", feed="source", link="softplus"))
    wanted = import_rorem.list_expected_shapes()
    lora = {name: shape for name, shape in wanted.items() if ".lora_" in name}
    renamed = {
        "unet." + name.replace(".lora_A.", ".lora.down.").replace(".lora_B.", ".lora.up."): torch.full(shape, 0.5)
        for name, shape in lora.items()
    }
    head = {name: torch.full(shape, 0.25) for name, shape in wanted.items() if name.startswith(HEAD)}
    assert len(head) == 14
    save_file(renamed, tmp_path / import_rorem.LORA_FILE)
    with pytest.raises(WrongDiscriminator, match=r"no cls_pred_branch\.pt"):
        import_rorem.read_rorem(tmp_path)
    torch.save(head, tmp_path / import_rorem.HEAD_FILE)
    assert {name: tuple(value.shape) for name, value in import_rorem.read_rorem(tmp_path).items()} == wanted
    torch.save(
        {name.removeprefix(HEAD + "."): value for name, value in head.items()}, tmp_path / import_rorem.HEAD_FILE
    )
    import_rorem.convert(tmp_path, prompt, tmp_path / "out")
    assert set(model.list_files(tmp_path / "out", tmp_path)) == {
        "judge.json",
        "weights.safetensors",
        "prompt.safetensors",
    }
    torch.save(head | {f"{HEAD}.0.weight": torch.ones(3)}, tmp_path / import_rorem.HEAD_FILE)
    with pytest.raises(WrongDiscriminator, match=r"cls_pred_branch\.0\.weight"):
        import_rorem.read_rorem(tmp_path)
    torch.save({"x": np.array}, tmp_path / import_rorem.HEAD_FILE)
    with pytest.raises(WrongDiscriminator, match="cannot be read"):
        import_rorem.read_rorem(tmp_path)


def test_the_full_size_files_of_rorem_fit():
    """At SDXL's size the converter expects 544 tensors of the LoRA (48 attentions of down blocks, 20 of the middle, 4
    layers each, 2 matrices) and 14 of the head, by the published names."""
    wanted = import_rorem.list_expected_shapes()
    assert len(wanted) == 544 + 14
    assert wanted["mid_block.attentions.0.transformer_blocks.9.attn2.to_k.lora_A.weight"] == (4, 2048)
    assert wanted["down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_B.weight"] == (640, 4)
    assert wanted["cls_pred_branch.6.weight"] == (1280, 1280, 4, 4)
    name = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0.lora.up.weight"
    assert import_rorem.convert_name(name) in wanted
    old = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.up.weight"
    assert import_rorem.convert_name(old) in wanted


def test_the_linear_codec_keeps_pictures(codec):
    """Encoding and decoding smooth pictures with 16 of 48 components loses little (above 34 dB), with all of them
    nothing; components are orthonormal; the same pictures give the same code; what the pictures it was fitted to lack
    is not scaled up beyond what rounding would be."""
    pixels = (
        torch.from_numpy(np.stack([make_picture(k) for k in range(4)]).transpose(0, 3, 1, 2).copy()).float() / 127.5 - 1
    )
    few = Pca.fit([make_picture(k) for k in range(12)], 16)
    latents = few.encode(pixels)
    assert latents.shape == (4, 16, 16, 16)
    error = (few.decode(latents) - pixels).square().mean() / 4
    assert -10 * torch.log10(error) > 34
    assert torch.allclose(few.components @ few.components.T, torch.eye(16), atol=1e-5)
    assert torch.allclose(codec.decode(codec.encode(pixels)), pixels, atol=1e-4)
    again = Pca.fit([make_picture(k) for k in range(12)], 16)
    assert torch.equal(again.components, few.components)
    assert (few.factor, few.channels) == (4, 16)
    grey = Pca.fit([np.full((64, 64, 3), 90, np.uint8)], 48)
    assert grey.encode(pixels).abs().max() < 2 * 4 * 3**0.5 / Pca.LEAST_DEVIATION


def test_views_hold_the_mask_and_whatever_else_changed():
    """The crop is a square with the mask in it; a change far away widens it; the whole picture can be squeezed; any
    touched pixel stays mask; wrong shapes and an empty mask are told."""
    source, target, mask = make_candidate(0, 200, 300)
    one = cut_crop(source, target, mask, 64)
    assert one.source.shape == (64, 64, 3)
    assert 0.03 < one.mask.mean() < 0.5
    far = target.copy()
    far[195:, 295:] += 50
    assert cut_crop(source, far, mask, 64).mask.mean() < one.mask.mean()
    assert cut_crop(source, far, mask, 64).mask.any()
    speck = np.zeros_like(mask)
    speck[100, 100] = True
    assert cut_crop(source, source, speck, 16, "whole").mask.sum() == 1
    x0, y0, x1, y1 = compute_window(mask, 0.75)
    assert x1 - x0 == y1 - y0
    assert mask[y0:y1, x0:x1].sum() == mask.sum()
    assert np.array_equal(flip(flip(one)).target, one.target)
    with pytest.raises(ValueError, match="nothing to judge"):
        cut_crop(source, target, np.zeros_like(mask), 64)
    with pytest.raises(ValueError, match="uint8"):
        cut_crop(source.astype(float), target, mask, 64)
