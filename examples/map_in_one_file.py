"""MAP, masked autoregressive pretraining of a hybrid Mamba-Transformer backbone, in one file of plain torch.

Run ``python examples/map_in_one_file.py``. Read from top to bottom: blocks, backbone, decoder, loss, training. Only the
two operators of a Mamba block come from mmmap. The weights have the names of mmmap's MAP: each loads the other's.
In comments: B images, L tokens (patches), C channels of a token, E channels of a scan, N states.
"""

import argparse
import math
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from mmmap.ops import bidirectional_conv1d, bidirectional_scan


# ---- Data ----
def load_pictures() -> tuple[Tensor, Tensor]:
    """The 1,797 digits of scikit-learn: normalised images (1797, 1, 8, 8) and their classes."""
    digits = load_digits()
    pictures = torch.tensor(digits.images, dtype=torch.float32)[:, None]
    return (pictures - pictures.mean()) / pictures.std(), torch.tensor(digits.target)


# ---- Blocks: (B, L, C) in and out ----
class MambaMixer(nn.Module):
    """Two scans over the tokens, one in each direction. Their cost is linear in L; that of attention is quadratic.

    A scan has N states per channel: h = exp(delta A) h + delta B u and y = C h + D u. B, C and the step size delta
    depend on the token: so the model chooses what to remember. Weights of scans are (2, ...), for the two directions.
    """

    def __init__(self, dim: int, states: int = 16, taps: int = 4, expand: int = 2) -> None:
        super().__init__()
        inner, rank = expand * dim, math.ceil(dim / 16)
        self.sizes = [rank, states, states]  # Of delta (in a low rank), B and C
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        conv, x_proj, dt_proj = taps**-0.5, (6 / (sum(self.sizes) + inner)) ** 0.5, rank**-0.5  # Bounds of weights
        self.conv_weight = nn.Parameter(torch.empty(2, inner, taps).uniform_(-conv, conv))
        self.conv_bias = nn.Parameter(torch.empty(2, inner).uniform_(-conv, conv))
        self.x_proj_weight = nn.Parameter(torch.empty(2, sum(self.sizes), inner).uniform_(-x_proj, x_proj))
        self.dt_proj_weight = nn.Parameter(torch.empty(2, inner, rank).uniform_(-dt_proj, dt_proj))
        # Initial step sizes from 0.001 to 0.1: channels forget at different speeds.
        dt = torch.empty(2, inner).uniform_(math.log(1e-3), math.log(1e-1)).exp()
        self.dt_proj_bias = nn.Parameter(dt.expm1().log())  # The inverse of softplus
        self.A_log = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(2, inner, 1))
        self.D = nn.Parameter(torch.ones(2, inner))
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.in_proj(x).transpose(1, 2).chunk(2, dim=1)  # (B, E, L) each
        u = bidirectional_conv1d(x, self.conv_weight, self.conv_bias, activation='silu')  # (B, 2, E, L)
        dt, B, C = (self.x_proj_weight @ u).split(self.sizes, dim=2)  # B and C: (B, 2, N, L)
        delta = self.dt_proj_weight @ dt  # (B, 2, E, L)
        options = dict(D=self.D, z=gate, delta_bias=self.dt_proj_bias, delta_softplus=True)
        y = bidirectional_scan(u, delta, -self.A_log.exp(), B, C, **options)  # Mean of both times silu(gate), (B, E, L)
        return self.out_proj(y.transpose(1, 2))


def mamba_block(dim: int) -> nn.Module:
    """A norm and a mixer. The backbone adds the skip connection."""
    return nn.Sequential(OrderedDict(norm=nn.RMSNorm(dim, eps=1e-5), mixer=MambaMixer(dim)))


def mlp(dim: int, hidden: int) -> nn.Module:
    """Two layers that act on each token alone."""
    return nn.Sequential(OrderedDict(fc1=nn.Linear(dim, hidden), gelu=nn.GELU(), fc2=nn.Linear(hidden, dim)))


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Multi-head attention of (B, L, C). ``mask`` (L, L) is True where a query attends to a key."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, heads, L, C / heads)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


class TransformerBlock(nn.Module):
    """The block of a vision Transformer: every token attends to all tokens."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm1, self.norm2 = heads, nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = nn.ModuleDict(dict(qkv=nn.Linear(dim, 3 * dim), proj=nn.Linear(dim, dim)))
        self.mlp = mlp(dim, 2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.attn['qkv'](self.norm1(x)).chunk(3, dim=-1)
        x = x + self.attn['proj'](attend(q, k, v, self.heads))
        return x + self.mlp(self.norm2(x))


# ---- Backbone: images to tokens, then blocks of both kinds ----
def positions(grid: int, dim: int) -> nn.ParameterDict:
    """A learned vector for each position in the grid."""
    return nn.ParameterDict(dict(weight=torch.randn(1, grid, grid, dim) * 0.02))


class Backbone(nn.Module):
    """Patch embedding, positions, and blocks in the order of the layout, such as 'MMMT': M is Mamba, T Transformer."""

    def __init__(self, size: int, patch: int, channels: int, dim: int, layout: str, heads: int) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(channels, dim, patch, stride=patch)
        self.pos_embed = positions(size // patch, dim)
        self.layout = layout
        blocks = nn.ModuleList(mamba_block(dim) if x == 'M' else TransformerBlock(dim, heads) for x in layout)
        self.encoder = nn.ModuleDict(dict(blocks=blocks, norm=nn.RMSNorm(dim, eps=1e-5)))

    def tokens(self, pictures: Tensor) -> Tensor:
        return self.patch_embed(pictures).flatten(2).transpose(1, 2) + self.pos_embed['weight'].flatten(1, 2)

    def encode(self, stream: Tensor) -> Tensor:
        """Apply the blocks. The branch is the latest output; the stream is the sum of the outputs before it."""
        branch, previous = None, ''
        for letter, block in zip(self.layout, self.encoder['blocks'], strict=True):
            if letter == 'M':  # Adds the branch to the stream, and makes a new branch
                stream = stream if branch is None else stream + branch
                branch = block(stream)
            elif branch is None:  # No M block yet: an ordinary Transformer
                stream = block(stream)
            else:  # Changes the branch alone. Right behind an M block there is one more skip connection.
                branch = block(branch) + branch if previous == 'M' else block(branch)
            previous = letter
        return self.encoder['norm'](stream if branch is None else stream + branch)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.encode(self.tokens(pictures)).mean(dim=1)  # One feature per image, (B, C)


# ---- Decoder: predicts hidden patches row by row ----
class DecoderBlock(nn.Module):
    """A Transformer block with an attention mask."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.norm_query, self.norm_context = heads, nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = nn.ModuleDict(dict(q=nn.Linear(dim, dim), kv=nn.Linear(dim, 2 * dim), proj=nn.Linear(dim, dim)))
        self.norm_mlp, self.mlp = nn.LayerNorm(dim), mlp(dim, 4 * dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, kv = self.attn['q'](self.norm_query(x)), self.attn['kv'](self.norm_context(x))
        x = x + self.attn['proj'](attend(q, *kv.chunk(2, dim=-1), self.heads, mask))
        return x + self.mlp(self.norm_mlp(x))


class RowCausalDecoder(nn.Module):
    """The autoregressive half of MAP: a row of patches attends to itself and to the rows above."""

    def __init__(self, in_dim: int, grid: int, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Linear(in_dim, dim)
        self.mask_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.pos_embed = positions(grid, dim)
        self.blocks = nn.ModuleList(DecoderBlock(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        row = torch.arange(grid * grid) // grid
        self.register_buffer('attention_mask', row <= row[:, None], persistent=False)  # (query, key)

    def forward(self, visible: Tensor, hidden: Tensor) -> Tensor:
        x = self.mask_token.repeat(*hidden.shape, 1)  # (B, L, C); visible tokens replace some.
        x[~hidden] = self.embed(visible).flatten(0, 1)
        x = x + self.pos_embed['weight'].flatten(1, 2)
        for block in self.blocks:
            x = block(x, self.attention_mask)
        return self.norm(x)


# ---- MAP: hide, encode, decode, compare ----
class MAP(nn.Module):
    """Masked autoregressive pretraining. The decoder is called neck, as in mmmap."""

    def __init__(self, size: int = 8, patch: int = 2, channels: int = 1, dim: int = 96, layout: str = 'MMMT') -> None:
        super().__init__()
        self.patch, self.num_tokens = patch, (size // patch) ** 2
        self.backbone = Backbone(size, patch, channels, dim, layout, heads=4)
        self.neck = RowCausalDecoder(dim, size // patch, dim=64, depth=2, heads=4)
        self.head = nn.Sequential(OrderedDict(proj=nn.Linear(64, patch * patch * channels)))  # Tokens to pixels
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def random_mask(self, batch: int, ratio: float = 0.5) -> Tensor:
        """Hide different tokens of each image, but the same number: (B, L), True where hidden."""
        ranks = torch.rand(batch, self.num_tokens).argsort(dim=1).argsort(dim=1)
        return ranks < math.ceil(self.num_tokens * ratio)

    def loss(self, pictures: Tensor, hidden: Tensor) -> Tensor:
        """Mean squared error of the predicted pixels of hidden patches."""
        tokens = self.backbone.tokens(pictures)
        # The encoder gets only the visible tokens, in their order: half the work.
        visible = self.backbone.encode(tokens[~hidden].unflatten(0, (len(tokens), -1)))
        predicted = self.head(self.neck(visible, hidden))
        patches = pictures.unfold(2, self.patch, self.patch).unfold(3, self.patch, self.patch)
        target = patches.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)  # (B, L, patch * patch * channels)
        # Each target patch gets mean 0 and variance 1: its pattern counts, not its brightness.
        variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
        target = (target - mean) / (variance + 1e-6).sqrt()
        return (predicted - target).square().mean(dim=-1)[hidden].mean()


# ---- Training and evaluation ----
def knn_accuracy(bank: Tensor, bank_labels: Tensor, query: Tensor, query_labels: Tensor) -> float:
    """Percent of queries that the 20 most similar features classify correctly; more similar ones count more."""
    knn = KNeighborsClassifier(20, metric='cosine', weights=lambda distance: np.exp(-distance / 0.07))
    return 100 * knn.fit(bank, bank_labels).score(query, query_labels)


def main() -> None:
    """Pretrain on digits without their labels; test on the last 500."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--epochs', type=int, default=80, help='default: 80')
    parser.add_argument('--out', type=Path, default='work_dirs/examples/map_digits.pth', help='file for the weights')
    args = parser.parse_args()
    torch.manual_seed(0)
    pictures, labels = load_pictures()
    training, batch, lr = pictures[:-500], 64, 2e-3
    model = MAP()
    hidden = model.random_mask(500)

    @torch.no_grad()
    def report(name: str) -> None:
        features, loss = model.backbone(pictures), model.loss(pictures[-500:], hidden)
        accuracy = knn_accuracy(features[:-500], labels[:-500], features[-500:], labels[-500:])
        print(f'{name:14}  loss {loss:.3f}  kNN accuracy {accuracy:.1f} %', flush=True)

    report('random weights')
    optimizer = torch.optim.Adam(model.parameters(), lr, betas=(0.9, 0.95))
    steps = len(training) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=args.epochs * steps, pct_start=0.1)
    for epoch in range(1, args.epochs + 1):
        for chosen in torch.randperm(len(training)).split(batch)[:steps]:
            loss = model.loss(training[chosen], model.random_mask(batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if epoch % 10 == 0 or epoch == args.epochs:
            report(f'epoch {epoch}')
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out)
    print(f'weights in {args.out}')


if __name__ == '__main__':
    main()
