"""Draw original, masked and rebuilt images of a pretrained model side by side."""

import argparse

import torch
from PIL import Image

import mmmap  # noqa: F401  (registers everything)
from mmmap.apis import build_model, load_images, load_model, stored_model
from mmmap.engine.errors import one_line_errors
from mmmap.engine.launch import read_config
from mmmap.visualization import draw_reconstruction


def main() -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', help='checkpoint of a MAP model')
    parser.add_argument('images', nargs='+', help='image files')
    parser.add_argument('--config', help='config file (default: the one that a converted checkpoint stores)')
    parser.add_argument('--out', default='reconstruction.png', help='picture to write (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the masks (default: %(default)s)')
    args = parser.parse_args()
    with one_line_errors():
        model = stored_model(args.checkpoint) if args.config is None else build_model(read_config(args.config))
        load_model(model, args.checkpoint)
        inputs = load_images(model, args.images, model.backbone.img_size)
        torch.manual_seed(args.seed)
        with torch.no_grad():
            reconstruction = model.reconstruct(inputs)
        picture = draw_reconstruction(reconstruction, inputs, model.data_preprocessor)
        Image.fromarray(picture).save(args.out)
        print(
            f'loss {reconstruction.loss():.4f} on the hidden patches of {len(args.images)} image(s); wrote {args.out}'
        )


if __name__ == '__main__':
    main()
