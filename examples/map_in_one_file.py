"""MAP, masked autoregressive pretraining of a hybrid Mamba-Transformer backbone, in one file of plain torch.

Run it: ``python examples/map_in_one_file.py``. Read it from top to bottom: data, blocks, backbone, decoder, loss,
evaluation, training. From mmmap it takes the two operators of a Mamba block and nothing else. Its weights have the
names of the toolbox: each loads the other's.
In comments: B pictures, L tokens, C channels of a token, E channels of a scan, N states.
"""

import argparse
import math
import time
from collections import OrderedDict
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from mmmap.ops import bidirectional_conv1d, bidirectional_scan


# ---- Data ----
def load_pictures() -> tuple[Tensor, Tensor]:
    """The 1,797 digits of scikit-learn: pictures (1797, 1, 8, 8), mean 0 and deviation 1, and what each shows."""
    digits = load_digits()
    pictures = torch.tensor(digits.images, dtype=torch.float32)[:, None]
    return (pictures - pictures.mean()) / pictures.std(), torch.tensor(digits.target)


def patchify(pictures: Tensor, side: int) -> Tensor:
    """Cut pictures (B, c, H, W) into square patches, row by row: (B, L, side * side * c)."""
    patches = pictures.unfold(2, side, side).unfold(3, side, side)  # (B, c, rows, columns, side, side)
    return patches.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)


# ---- Blocks: how a token learns of the others; (B, L, C) in and out ----
class MambaMixer(nn.Module):
    """Two scans along the tokens, one from either end. Twice the tokens cost twice as much, not four times.

    A scan carries N states for each channel: h = exp(delta A) h + delta B u and y = C h + D u. B, C and the step size
    delta are made from the token: so the model chooses what to remember. The weights of the scans have a first axis of
    2, one entry for each direction.
    """

    def __init__(self, dim: int, states: int = 16, taps: int = 4, expand: int = 2) -> None:
        super().__init__()
        inner, rank = expand * dim, math.ceil(dim / 16)
        self.sizes = [rank, states, states]

        def uniform(*shape: int, bound: float) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))

        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv_weight = uniform(2, inner, taps, bound=taps**-0.5)
        self.conv_bias = uniform(2, inner, bound=taps**-0.5)
        self.x_proj_weight = uniform(2, sum(self.sizes), inner, bound=(6 / (sum(self.sizes) + inner)) ** 0.5)
        self.dt_proj_weight = uniform(2, inner, rank, bound=rank**-0.5)
        # At first the step sizes lie between 0.001 and 0.1, so that channels forget at different speeds.
        dt = torch.empty(2, inner).uniform_(math.log(1e-3), math.log(1e-1)).exp()
        self.dt_proj_bias = nn.Parameter(dt.expm1().log())  # softplus(bias) is dt.
        self.A_log = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(2, inner, 1))
        self.D = nn.Parameter(torch.ones(2, inner))
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.in_proj(x).transpose(1, 2).chunk(2, dim=1)  # (B, E, L) each
        u = bidirectional_conv1d(x, self.conv_weight, self.conv_bias, activation='silu')  # (B, 2, E, L)
        dt, B, C = (self.x_proj_weight @ u).split(self.sizes, dim=2)  # B and C: (B, 2, N, L)
        delta = self.dt_proj_weight @ dt  # (B, 2, E, L)
        A = -self.A_log.exp()  # Negative: states fade.
        options = dict(D=self.D, z=gate, delta_bias=self.dt_proj_bias, delta_softplus=True)
        y = bidirectional_scan(u, delta, A, B, C, **options)  # The mean of both directions times silu(gate), (B, E, L)
        return self.out_proj(y.transpose(1, 2))


class MambaBlock(nn.Module):
    """A norm and a mixer. The sum with the input is left to the encoder."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(dim, eps=1e-5)
        self.mixer = MambaMixer(dim)

    def forward(self, stream: Tensor) -> Tensor:
        return self.mixer(self.norm(stream))


def mlp(dim: int, hidden: int) -> nn.Module:
    """Two layers that change each token by itself."""
    return nn.Sequential(OrderedDict(fc1=nn.Linear(dim, hidden), gelu=nn.GELU(), fc2=nn.Linear(hidden, dim)))


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Each query takes a weighted mean of the values, head by head; ``mask`` (L, L) is True where it may look."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, heads, L, C / heads)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Every token attends to every other."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(attend(*self.qkv(x).chunk(3, dim=-1), self.heads))


class TransformerBlock(nn.Module):
    """The block of a vision Transformer: attention, then an MLP, each added to its input."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim), SelfAttention(dim, heads)
        self.norm2, self.mlp = nn.LayerNorm(dim), mlp(dim, 2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


# ---- Backbone: patches to tokens, then blocks of both kinds ----
class HybridEncoder(nn.Module):
    """Blocks in the order of the layout, such as 'MMMT': M is a Mamba block, T a Transformer block.

    The encoder carries two things: the stream, which is the sum of earlier outputs, and the branch, which is the latest
    output and not yet in that sum. An M block adds the branch to the stream and makes a new branch from it. A T block
    refines the branch and leaves the stream alone.
    """

    def __init__(self, dim: int, layout: str, heads: int) -> None:
        super().__init__()
        self.layout = layout
        self.blocks = nn.ModuleList(MambaBlock(dim) if x == 'M' else TransformerBlock(dim, heads) for x in layout)
        self.norm = nn.RMSNorm(dim, eps=1e-5)

    def forward(self, stream: Tensor) -> Tensor:
        branch, before = None, ''
        for letter, block in zip(self.layout, self.blocks, strict=True):
            if letter == 'M':
                stream = stream if branch is None else stream + branch
                branch = block(stream)
            elif branch is None:  # There was no M block yet: an ordinary Transformer.
                stream = block(stream)
            else:  # Right behind an M block there is one more skip connection.
                branch = block(branch) + branch if before == 'M' else block(branch)
            before = letter
        return self.norm(stream if branch is None else stream + branch)


def positions(grid: int, dim: int) -> nn.ParameterDict:
    """A learned vector for each place in the grid: without it a token does not know where it is."""
    return nn.ParameterDict(dict(weight=torch.randn(1, grid, grid, dim) * 0.02))


class Backbone(nn.Module):
    """A linear map (a convolution with a stride) makes patches tokens; they get their positions and are encoded."""

    def __init__(self, size: int, patch: int, channels: int, dim: int, layout: str, heads: int) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(channels, dim, patch, stride=patch)
        self.pos_embed = positions(size // patch, dim)
        self.encoder = HybridEncoder(dim, layout, heads)

    def tokens(self, pictures: Tensor) -> Tensor:
        return self.patch_embed(pictures).flatten(2).transpose(1, 2) + self.pos_embed['weight'].flatten(1, 2)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.encoder(self.tokens(pictures)).mean(dim=1)  # One feature a picture, (B, C)


# ---- Decoder: hidden patches from visible ones, row after row ----
class MaskedAttention(nn.Module):
    """Attention with a mask; queries and keys have a norm each."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.q, self.kv, self.proj = heads, *(nn.Linear(dim, n * dim) for n in (1, 2, 1))

    def forward(self, query: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        return self.proj(attend(self.q(query), *self.kv(context).chunk(2, dim=-1), self.heads, mask))


class DecoderBlock(nn.Module):
    """A Transformer block with such an attention."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm_query, self.norm_context = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = MaskedAttention(dim, heads)
        self.norm_mlp, self.mlp = nn.LayerNorm(dim), mlp(dim, 4 * dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attn(self.norm_query(x), self.norm_context(x), mask)
        return x + self.mlp(self.norm_mlp(x))


class RowCausalDecoder(nn.Module):
    """Puts mask tokens where patches were hidden. Then each row attends to itself and the rows above.

    This is the autoregressive half of MAP: the first row has little to go by, the last row the whole picture.
    """

    def __init__(self, in_dim: int, grid: int, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Linear(in_dim, dim)
        self.mask_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.pos_embed = positions(grid, dim)
        self.blocks = nn.ModuleList(DecoderBlock(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        row = torch.arange(grid * grid) // grid
        self.register_buffer('may_see', row <= row[:, None], persistent=False)  # (query, key)

    def forward(self, visible: Tensor, hidden: Tensor) -> Tensor:
        x = self.mask_token.repeat(*hidden.shape, 1)  # (B, L, C)
        x[~hidden] = self.embed(visible).flatten(0, 1)
        x = x + self.pos_embed['weight'].flatten(1, 2)
        for block in self.blocks:
            x = block(x, self.may_see)
        return self.norm(x)


# ---- MAP: hide, encode, decode, compare ----
class MAP(nn.Module):
    """Masked autoregressive pretraining. ``neck`` is the decoder: the toolbox calls it so."""

    def __init__(
        self, size: int = 8, patch: int = 2, channels: int = 1, dim: int = 96, layout: str = 'MMMT', heads: int = 4
    ) -> None:
        super().__init__()
        self.patch, self.num_tokens = patch, (size // patch) ** 2
        self.backbone = Backbone(size, patch, channels, dim, layout, heads)
        self.neck = RowCausalDecoder(dim, size // patch, dim=64, depth=2, heads=4)
        self.head = nn.Sequential(OrderedDict(proj=nn.Linear(64, patch * patch * channels)))  # Tokens to pixels
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def random_mask(self, batch: int, ratio: float = 0.5) -> Tensor:
        """Hide as many tokens in every picture, but not the same ones: (B, L), True where hidden."""
        ranks = torch.rand(batch, self.num_tokens).argsort(dim=1).argsort(dim=1)
        return ranks < math.ceil(self.num_tokens * ratio)

    def loss(self, pictures: Tensor, hidden: Tensor) -> Tensor:
        """Mean squared error of the rebuilt pixels of the hidden patches."""
        tokens = self.backbone.tokens(pictures)
        # The encoder never meets hidden tokens, which saves half its work. The visible ones stay in reading order.
        visible = self.backbone.encoder(tokens[~hidden].unflatten(0, (len(tokens), -1)))
        predicted = self.head(self.neck(visible, hidden))
        # Each target patch has mean 0 and variance 1: what counts is its pattern, not how bright it is.
        target = patchify(pictures, self.patch)
        variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
        target = (target - mean) / (variance + 1e-6).sqrt()
        return (predicted - target).square().mean(dim=-1)[hidden].mean()


# ---- Evaluation and training ----
def knn_accuracy(bank: Tensor, bank_labels: Tensor, query: Tensor, query_labels: Tensor, k: int = 20) -> float:
    """Percent of queries whose k nearest features, by cosine, vote for the right class; nearer ones count more."""
    similarity, nearest = (F.normalize(query, dim=1) @ F.normalize(bank, dim=1).T).topk(k)
    votes = torch.zeros(len(query), int(bank_labels.max()) + 1)
    votes.scatter_add_(1, bank_labels[nearest], (similarity / 0.07).softmax(dim=1))
    return 100 * (votes.argmax(dim=1) == query_labels).float().mean().item()


def train(model: MAP, pictures: Tensor, epochs: int, batch: int = 64, lr: float = 2e-3) -> None:
    """Learn from pictures alone: labels take no part."""
    optimizer = torch.optim.Adam(model.parameters(), lr, betas=(0.9, 0.95))
    steps = len(pictures) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * steps, pct_start=0.1)
    for epoch in range(1, epochs + 1):
        losses = []
        for chosen in torch.randperm(len(pictures)).split(batch)[:steps]:
            loss = model.loss(pictures[chosen], model.random_mask(batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        if epoch % 10 == 0:
            print(f'epoch {epoch:3d}  loss {sum(losses) / steps:.3f}', flush=True)


def main() -> None:
    """Train and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--epochs', type=int, default=80, help='default: 80')
    parser.add_argument('--out', type=Path, default='work_dirs/examples/map_digits.pth', help='file for the weights')
    args = parser.parse_args()
    started = time.time()
    torch.manual_seed(0)
    pictures, labels = load_pictures()
    test = 500  # The last so many pictures are not trained on; the others are what their neighbours are looked for in.
    model = MAP()
    hidden = model.random_mask(test)

    @torch.no_grad()
    def evaluate() -> tuple[float, float]:
        features = model.backbone(pictures)
        accuracy = knn_accuracy(features[:-test], labels[:-test], features[-test:], labels[-test:])
        return model.loss(pictures[-test:], hidden).item(), accuracy

    before = evaluate()
    train(model, pictures[:-test], args.epochs)
    after = evaluate()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out)
    print(
        f'loss          {before[0]:.3f} -> {after[0]:.3f}, {test} unseen digits\n'
        f'kNN accuracy  {before[1]:.1f} % (random weights) -> {after[1]:.1f} % (pretrained)\n'
        f'weights       {args.out}\n'
        f'done in {time.time() - started:.0f} s'
    )


if __name__ == '__main__':
    main()
