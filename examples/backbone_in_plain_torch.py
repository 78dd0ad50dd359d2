"""The backbone in plain torch, without a config and without a Runner: build, load, use, fine-tune, save.

Run ``python examples/map_in_one_file.py`` first, which writes the checkpoint, then
``python examples/backbone_in_plain_torch.py``.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from map_in_one_file import load_pictures
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from mmmap.models import MAPHybrid

CHECKPOINT = Path('work_dirs/examples/map_digits.pth')
ARCH = dict(embed_dim=96, layout='MMMT', num_heads=4)  # Or a name, such as arch='base'.


def build(out_type: str, checkpoint: Path | None = None) -> MAPHybrid:
    """A backbone for the digits, with the weights of a pretraining checkpoint if one is given."""
    backbone = MAPHybrid(ARCH, img_size=8, patch_size=2, in_channels=1, out_type=out_type)
    if checkpoint:
        # A pretraining checkpoint also has a decoder (neck) and a head: only the weights under 'backbone.' are used.
        # torch.load(weights_only=True) refuses checkpoints of tools/train.py, which hold more than tensors. This loader
        # reads them; mmmap makes it safe.
        weights = CheckpointLoader.load_checkpoint(str(checkpoint), map_location='cpu', logger='silent')
        weights = weights.get('state_dict', weights)
        prefix = 'backbone.'
        backbone.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    return backbone


class Classifier(nn.Module):
    """A backbone and a linear layer on the mean of its tokens."""

    def __init__(self, backbone: MAPHybrid, num_classes: int = 10) -> None:
        super().__init__()
        self.backbone = backbone
        self.norm = nn.BatchNorm1d(backbone.embed_dim, affine=False)
        self.linear = nn.Linear(backbone.embed_dim, num_classes)

    def forward(self, pictures: Tensor) -> Tensor:
        # The backbone returns a tuple, one feature for each of its out_indices.
        (feature,) = self.backbone(pictures)
        return self.linear(self.norm(feature))


def train(model: Classifier, pictures: Tensor, labels: Tensor, epochs: int) -> None:
    """Train the parameters that are not frozen."""
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    for epoch in range(1, epochs + 1):
        model.train()
        total = 0.0
        for chosen in torch.randperm(len(pictures)).split(64):
            loss = F.cross_entropy(model(pictures[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(chosen)
        print(f'epoch {epoch:2d}  loss {total / len(pictures):.3f}', flush=True)


@torch.no_grad()
def accuracy(model: Classifier, pictures: Tensor, labels: Tensor) -> float:
    """Percent of images that are classified correctly."""
    return 100 * (model.eval()(pictures).argmax(dim=1) == labels).float().mean().item()


def main() -> None:
    """Show the outputs of the backbone, train a classifier on it, save and load it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('checkpoint', type=Path, nargs='?', default=CHECKPOINT, help=f'default: {CHECKPOINT}')
    parser.add_argument('--epochs', type=int, default=10, help='default: 10')
    parser.add_argument('--out', type=Path, default='work_dirs/examples/classifier.pth', help='file for the weights')
    args = parser.parse_args()
    if not args.checkpoint.is_file():
        parser.error(f'{args.checkpoint}: no such file; examples/map_in_one_file.py writes it')
    torch.manual_seed(0)
    pictures, labels = load_pictures()
    for out_type in ('avg_featmap', 'featmap', 'raw'):
        with torch.no_grad():
            (feature,) = build(out_type, args.checkpoint)(pictures[:1])
        print(f'{out_type:12} {tuple(feature.shape)}')

    model = Classifier(build('avg_featmap', args.checkpoint))
    model.backbone.requires_grad_(False)  # Leave this out to train the backbone too, with a smaller lr.
    train(model, pictures[:-500], labels[:-500], args.epochs)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), args.out)

    loaded = Classifier(build('avg_featmap'))
    loaded.load_state_dict(torch.load(args.out, weights_only=True))
    for name, classifier in dict(trained=model, loaded=loaded).items():
        print(f'{name:12} {accuracy(classifier, pictures[-500:], labels[-500:]):.1f} % of 500 unseen digits')


if __name__ == '__main__':
    main()
