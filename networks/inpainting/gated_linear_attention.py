"""Gated linear attention in pure torch: a recurrence over tokens, carried out chunk by chunk.

Yang et al., "Gated Linear Attention Transformers with Hardware-Efficient Training" (ICML 2024, arXiv 2312.06635),
equations 3 and 6. Tensors have the names of the `flash-linear-attention` library, so that weights trained with it fit;
unlike it, this runs on a CPU too.
"""

from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 16
"""Tokens of a chunk. Within it, decays between all pairs of tokens are kept, (chunk, chunk, key width) for each."""
GATE_NORMALIZER = 16.0
GATE_RANK = 16
NORM_EPS = 1e-6


def attend_with_gates(queries: "Tensor", keys: "Tensor", values: "Tensor", log_gates: "Tensor") -> "Tensor":
    """Return the recurrence's outputs (n, heads, tokens, dv), in float32.

    With the state S (dk, dv), 0 at first: S_t = diag(exp(g_t)) S_(t-1) + k_t v_t^T and o_t = q_t^T S_t / sqrt(dk). The
    decay between two tokens of a chunk is the exponential of a difference of sums that is never above 0, so that
    nothing overflows however strong the gates are; gates are summed in float32, since bfloat16 drifts over thousands
    of tokens.

    Args:
        queries, keys: (n, heads, tokens, dk). values: (n, heads, tokens, dv).
        log_gates: (n, heads, tokens, dk), 0 or below.

    Examples:
        >>> q = k = v = torch.ones(1, 1, 3, 1)
        >>> attend_with_gates(q, k, v, torch.full_like(q, -torch.inf)).flatten().tolist()  # nothing is remembered
        [1.0, 1.0, 1.0]
        >>> attend_with_gates(q, k, v, torch.zeros_like(q)).flatten().tolist()  # everything is
        [1.0, 2.0, 3.0]
    """
    tokens, key_width = queries.shape[2:]
    border = (0, 0, 0, -tokens % CHUNK)
    # -inf - -inf is no number: what is this small is forgotten all the same
    gates = log_gates.float().clamp(min=-1e4)
    queries, keys, values, gates = (
        F.pad(part.float(), border).reshape(*part.shape[:2], -1, CHUNK, part.shape[-1])
        for part in (queries, keys, values, gates)
    )  # (n, heads, chunks, chunk, width)
    queries = queries * key_width**-0.5
    sums = gates.cumsum(3)
    decay = (sums[..., :, None, :] - sums[..., None, :, :]).clamp(max=0).exp()  # of token s until token t
    pairs = torch.einsum("nhctk,nhcsk,nhctsk->nhcts", queries, keys, decay).tril()
    inside = pairs @ values
    last = sums[..., -1:, :]
    additions = (keys * (last - sums).exp()).transpose(-1, -2) @ values  # what each chunk adds to the state
    fading = last.exp().transpose(-1, -2)  # (n, heads, chunks, dk, 1)
    state = torch.zeros_like(additions[:, :, 0])
    states = []
    for number in range(additions.shape[2]):
        states.append(state)
        state = fading[:, :, number] * state + additions[:, :, number]
    outputs = inside + (queries * sums.exp()) @ torch.stack(states, 2)
    joined: Tensor = outputs.flatten(2, 3)[:, :, :tokens]
    return joined


class HeadNorm(nn.Module):
    """RMS normalisation of each head, times the gate's swish."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: "Tensor", gate: "Tensor") -> "Tensor":
        """Return (…, width) of two of that shape."""
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + NORM_EPS)
        return x * scale * self.weight.to(x.dtype) * F.silu(gate.to(x.dtype))


class GatedLinearAttention(nn.Module):
    """A causal layer in place of self-attention: keys of half the width, values of the whole.

    Args:
        width: of the tokens; a multiple of 2 * heads.

    Examples:
        >>> tuple(GatedLinearAttention(16, heads=2)(torch.zeros(1, 5, 16)).shape)
        (1, 5, 16)
    """

    def __init__(self, width: int, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width // 2, bias=False)
        self.k_proj = nn.Linear(width, width // 2, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.g_proj = nn.Linear(width, width, bias=False)
        self.gk_proj = nn.Sequential(nn.Linear(width, GATE_RANK, bias=False), nn.Linear(GATE_RANK, width // 2))
        self.g_norm_swish_gate = HeadNorm(width // heads)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, hidden_states: "Tensor", **unused: Any) -> "Tensor":
        """Return (n, tokens, width) of (n, tokens, width); takes the arguments of diffusers' attention."""

        def split(x: "Tensor") -> "Tensor":
            return x.reshape(*x.shape[:-1], self.heads, -1).transpose(1, 2)

        log_gates = F.logsigmoid(self.gk_proj(hidden_states).float()) / GATE_NORMALIZER
        outputs = attend_with_gates(
            split(self.q_proj(hidden_states)),
            split(self.k_proj(hidden_states)),
            split(self.v_proj(hidden_states)),
            split(log_gates),
        )
        gated = self.g_norm_swish_gate(outputs, split(self.g_proj(hidden_states)))
        return cast("Tensor", self.o_proj(gated.transpose(1, 2).flatten(2).to(hidden_states.dtype)))


def replace_self_attention(unet: Any, heads: int = 8) -> Any:
    """Return a UNet of diffusers whose transformers have gated linear attention in place of self-attention."""
    for module in unet.modules():
        if type(module).__name__ == "BasicTransformerBlock":
            module.attn1 = GatedLinearAttention(module.attn1.query_dim, heads)
    return unet
