"""The mixer against its formulas, written out in numpy."""

import numpy as np
import pytest
import torch

from mmmap.models.layers import MambaMixer


def silu(x):
    return x / (1 + np.exp(-x))


def softplus(x):
    return np.logaddexp(0, x)


def scan_direction(p: dict, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """One direction on one sample: x and z (L, E), the first token first."""
    length, inner = x.shape
    width = p['conv_weight'].shape[1]
    padded = np.vstack([np.zeros((width - 1, inner)), x])
    x = silu(np.stack([(padded[t : t + width] * p['conv_weight'].T).sum(0) for t in range(length)]) + p['conv_bias'])
    rank, states = p['dt_proj_weight'].shape[1], p['A_log'].shape[1]
    dt, B, C = np.split(x @ p['x_proj_weight'].T, [rank, rank + states], axis=1)
    dt = softplus(dt @ p['dt_proj_weight'].T + p['dt_proj_bias'])
    h, out = np.zeros((inner, states)), []
    for t in range(length):
        h = np.exp(-dt[t][:, None] * np.exp(p['A_log'])) * h + np.outer(dt[t] * x[t], B[t])
        out.append(h @ C[t] + p['D'] * x[t])
    return np.stack(out) * silu(z)


def mix(mixer: MambaMixer, tokens: torch.Tensor) -> np.ndarray:
    p = {name: value.detach().double().numpy() for name, value in mixer.named_parameters()}
    directions = [{name: value[i] for name, value in p.items() if value.shape[0] == 2} for i in range(2)]
    samples = []
    for sample in tokens.double().numpy():
        x, z = np.split(sample @ p['in_proj.weight'].T, 2, axis=1)
        forward = scan_direction(directions[0], x, z)
        backward = scan_direction(directions[1], x[::-1], z[::-1])[::-1]
        samples.append((forward + backward) / 2 @ p['out_proj.weight'].T)
    return np.stack(samples)


def random_mixer(*args) -> MambaMixer:
    """A mixer with nothing left at zero or one."""
    mixer = MambaMixer(*args)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return mixer


@pytest.mark.parametrize('length', [1, 2, 3, 11])
@pytest.mark.parametrize('dims', [(12, 5, 4, 2), (20, 16, 3, 1)])
def test_equals_the_formulas(length, dims):
    mixer = random_mixer(*dims).double()
    tokens = torch.randn(2, length, dims[0], dtype=torch.float64)
    expected = mix(mixer, tokens)
    assert np.abs(mixer(tokens).detach().numpy() - expected).max() < 1e-10 * max(1.0, np.abs(expected).max())
    single = mixer.float()(tokens.float()).detach().numpy()
    assert np.abs(single - mix(mixer, tokens)).max() < 2e-5 * np.abs(expected).max()


def test_the_directions_mirror_each_other():
    mixer, mirrored = random_mixer(12), random_mixer(12)
    weights = {
        name: value if name in ('in_proj.weight', 'out_proj.weight') else value.flip(0)
        for name, value in mixer.state_dict().items()
    }
    mirrored.load_state_dict(weights)
    tokens = torch.randn(2, 7, 12)
    torch.testing.assert_close(mirrored(tokens.flip(1)).flip(1), mixer(tokens))


def test_every_token_sees_every_other():
    mixer = random_mixer(12).double()
    tokens = torch.randn(1, 6, 12, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: mixer(x).sum(-1)[0], tokens)[:, 0]
    assert (jacobian.abs().sum(-1) > 0).all()


def test_samples_do_not_mix():
    mixer = random_mixer(12)
    tokens = torch.randn(3, 5, 12)
    alone = torch.cat([mixer(sample[None]) for sample in tokens])
    torch.testing.assert_close(mixer(tokens), alone)


@pytest.mark.parametrize('length', [1, 3, 9])
def test_causal_is_the_forward_direction_alone(length):
    mixer = MambaMixer(16, d_state=4)
    tokens = torch.randn(2, length, 16)
    p = {name: value.detach().double().numpy() for name, value in mixer.named_parameters()}
    forward = {name: value[0] for name, value in p.items() if value.shape[0] == 2}
    expected = [
        scan_direction(forward, *np.split(sample @ p['in_proj.weight'].T, 2, axis=1)) @ p['out_proj.weight'].T
        for sample in tokens.double().numpy()
    ]
    np.testing.assert_allclose(mixer(tokens, causal=True).detach().numpy(), np.stack(expected), rtol=2e-4, atol=1e-5)
