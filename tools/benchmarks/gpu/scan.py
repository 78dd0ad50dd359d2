"""The scan: every backend against float64, and the triton kernels against mamba-ssm with flips."""

import argparse
import math
from collections.abc import Callable

import torch
from torch import Tensor

from mmmap.ops import available_backends, bidirectional_scan, selective_scan

from .common import format_table, free_memory, median_ms, one_line, relative_error

LENGTHS = (1, 2, 5, 16, 33, 98, 208, 1024, 4096)
# Longer scans are tested only in both directions at once, and without the reference, a loop that takes seconds.
LOOP_LENGTH = 1024
STATES = 16
# Largest errors of a backend, as norms: the rounding of float32 sums, and of results to bfloat16.
LIMITS = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
NAMES = ('u', 'delta', 'A', 'B', 'C', 'D', 'z', 'delta_bias')
DIRECTIONS = ('both', 'forward', 'reverse')
# Channels of the scans of tiny, small, base and huge.
WIDTHS = (384, 768, 1536, 3072)
# Lengths of pretraining, fine-tuning (196 tokens and 12 registers) and detection (1024 pixels).
USES = {98: 'pretraining', 208: 'fine-tuning', 4096: 'detection'}
DETECTION_BATCH = 2
ELEMENTS = 256 * 384 * 98  # Elements of one activation at the shorter lengths; they give the batch.

Scan = Callable[[list[Tensor]], Tensor]


def make_inputs(batch: int, channels: int, length: int, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """Fresh random inputs of a scan in both directions as a mixer makes them: channels side by side, float32 weights.

    Args:
        batch: Sequences.
        channels: Channels of a direction.
        length: Positions.
        dtype: Type of everything with a length.
        device: Where to make them.

    Returns:
        list[Tensor]: By the order of ``NAMES``.
    """

    def sequence(width: int) -> Tensor:
        return torch.randn(2, batch, length, width, device=device).to(dtype).permute(1, 0, 3, 2)

    A = -torch.arange(1.0, STATES + 1, device=device).repeat(2, channels, 1) * torch.rand(2, channels, 1, device=device)
    D, bias = (torch.randn(2, channels, device=device) for _ in range(2))
    delta = sequence(channels) * 0.5 - 3
    tensors = [sequence(channels), delta, A, sequence(STATES), sequence(STATES), D, sequence(channels)[:, 0], bias]
    return [x.detach().requires_grad_() for x in tensors]


def scan_of(direction: str, backend: str) -> Scan:
    """The scan of inputs like those of :func:`make_inputs`, in one direction its own part of them."""
    if direction == 'both':
        return lambda inputs: bidirectional_scan(*inputs, delta_softplus=True, backend=backend)
    index = DIRECTIONS.index(direction) - 1

    def scan(inputs: list[Tensor]) -> Tensor:
        u, delta, A, B, C, D, z, bias = inputs
        u, delta, B, C = (x[:, index] for x in (u, delta, B, C))
        options = dict(delta_softplus=True, reverse=index == 1, backend=backend)
        return selective_scan(u, delta, A[index], B, C, D[index], z, bias[index], **options)

    return scan


def _poison(device: torch.device) -> None:
    """Fill free memory with NaN, so that elements that a kernel does not write are found."""
    block = torch.full((2**24,), float('nan'), device=device)
    del block


def check_one(
    direction: str, backends: list[str], shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device
) -> list[dict]:
    """Errors of each backend's output and gradients against the reference in float64."""
    inputs = make_inputs(*shape, dtype, device)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    out = scan_of(direction, 'reference')(exact)
    dout = torch.randn_like(out).to(dtype)
    wanted = [out.detach(), *torch.autograd.grad(out, exact, dout.double())]
    rows = []
    for backend in backends:
        row = dict(backend=backend, dtype=str(dtype)[6:], direction=direction, batch=shape[0], channels=shape[1])
        row |= dict(length=shape[2], limit=LIMITS[dtype])
        try:
            _poison(device)
            found = scan_of(direction, backend)(inputs)
            grads = torch.autograd.grad(found, inputs, dout)
        except Exception as error:  # One backend must not hide the others.
            rows.append(row | dict(failed=one_line(error)))
            continue
        errors = [relative_error(a, b) for a, b in zip((found, *grads), wanted, strict=True)]
        row['errors'] = dict(zip(('out', *NAMES), errors, strict=True))
        rows.append(row | dict(worst=max(errors), passed=max(errors) <= row['limit']))
    return rows


def summarise(rows: list[dict]) -> list[dict]:
    """The largest errors of each backend, type and direction over all lengths, and where they occur."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row['backend'], row['dtype'], row['direction']), []).append(row)
    found = []
    for (backend, dtype, direction), group in groups.items():
        ran = [row for row in group if 'errors' in row]
        line = {'backend': backend, 'type': dtype, 'direction': direction, 'shapes': len(group)}
        if ran:
            worst = max(ran, key=lambda row: row['worst'])
            name = max(worst['errors'], key=worst['errors'].get)
            line['output'] = max(row['errors']['out'] for row in ran)
            line['gradients'] = max(max(v for k, v in row['errors'].items() if k != 'out') for row in ran)
            line['worst'] = f'{name} at L = {worst["length"]}'
        line['passed'] = 'yes' if all(row.get('passed') for row in group) else 'NO'
        found.append(line)
    return found


def scan_check(args: argparse.Namespace, report: dict, device: torch.device) -> None:
    """Every available backend against float64: output and gradients, all lengths, each direction and both."""
    usable = [name for name, reason in available_backends().items() if reason is None and name != 'native']
    rows = []
    report['scan-check'] = dict(rows=rows)
    fast = [name for name in usable if name != 'reference']
    for length in args.lengths:
        short = length <= LOOP_LENGTH
        for dtype in LIMITS:
            for direction in DIRECTIONS if short else ('both',):
                rows += check_one(direction, usable if short else fast, (2, 96, length), dtype, device)
        worst = {str(dtype)[6:]: 0.0 for dtype in LIMITS}
        for row in rows:
            if row['length'] == length:
                worst[row['dtype']] = max(worst[row['dtype']], row.get('worst', float('inf')))
        print(f'L = {length}: ' + ', '.join(f'{dtype} {error:.1e}' for dtype, error in worst.items()), flush=True)
        args.save()
    # An odd number of channels and of sequences, and a width that fills the GPU.
    for shape in ((3, 77, 50), (16, 1536, 98)):
        for dtype in LIMITS:
            rows += check_one('both', fast, shape, dtype, device)
    report['scan-check']['summary'] = summarise(rows)
    columns = dict(backend='', type='', direction='', shapes='d', output='.1e', gradients='.1e', worst='', passed='')
    print(format_table(report['scan-check']['summary'], columns))
    for row in rows:
        if 'failed' in row:
            print(f'{row["backend"]} {row["dtype"]} {row["direction"]} L = {row["length"]}: {row["failed"]}')
    if not all(row.get('passed') for row in rows):
        raise AssertionError('a backend is not as near to float64 as it should be, see the table')


def least_bytes(batch: int, channels: int, length: int, itemsize: int, backward: bool) -> int:
    """Least bytes of a scan in both directions: each activation is read or written once.

    Forward reads u, delta, B and C of both directions and z and writes the output. Backward reads them again with the
    gradient of the output and writes a gradient of each.
    """
    inputs = batch * length * (2 * 2 * channels + 2 * 2 * STATES + channels)
    out = batch * length * channels
    return itemsize * (inputs + out + (2 * inputs + out if backward else 0))


def flipping_scan(selective_scan_fn: Callable[..., Tensor], inputs: list[Tensor]) -> tuple[Callable, list[Tensor]]:
    """The same scan by two calls of mamba-ssm in its layout, the second on flipped copies."""
    u, delta, A, B, C, D, z, bias = (x.detach() for x in inputs)
    parts = [[u[:, i], delta[:, i], B[:, i], C[:, i], A[i], D[i], bias[i]] for i in range(2)]
    parts = [[x.clone(memory_format=torch.contiguous_format).requires_grad_() for x in part] for part in parts]
    z = z.clone(memory_format=torch.contiguous_format).requires_grad_()

    def scan() -> Tensor:
        outs = []
        for index, (*sequences, A, D, bias) in enumerate(parts):
            u, delta, B, C, gate = (x.flip(-1) if index else x for x in (*sequences, z))
            out = selective_scan_fn(u, delta, A, B, C, D, gate, bias, True)
            outs.append(out.flip(-1) if index else out)
        return (outs[0] + outs[1]) / 2

    return scan, [*parts[0], *parts[1], z]


def speed_shapes() -> list[tuple[int, int, int]]:
    """(batch, channels, length) of every use at every width."""
    shapes = []
    for length in USES:
        for channels in WIDTHS:
            batch = DETECTION_BATCH if length > 1000 else 2 ** round(math.log2(ELEMENTS / channels / length))
            shapes.append((max(1, batch), channels, length))
    return shapes


def time_shape(shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device, milliseconds: int) -> dict:
    """Milliseconds forward, and forward + backward, of triton and of mamba-ssm with flips.

    Those of the GPU, from replays of a CUDA graph, and, as ``..._call``, those of a single call from Python, for which
    the GPU waits where its kernels are shorter than what the host does to launch them.
    """
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    inputs = make_inputs(*shape, dtype, device)
    flipping, leaves = flipping_scan(selective_scan_fn, inputs)
    dout = torch.randn(shape[0], shape[2], shape[1], device=device).to(dtype).transpose(1, 2)
    ours = scan_of('both', 'triton')
    ways = {'triton': (lambda: ours(inputs), inputs, dout), 'mamba_ssm': (flipping, leaves, dout.contiguous())}
    row = dict(batch=shape[0], channels=shape[1], length=shape[2], dtype=str(dtype)[6:], use=USES[shape[2]])
    for name, (forward, wanted, gradient) in ways.items():

        def both_passes(forward=forward, wanted=wanted, gradient=gradient) -> tuple[Tensor, ...]:
            return torch.autograd.grad(forward(), wanted, gradient)

        for kind, call in (('forward', forward), ('step', both_passes)):
            with torch.set_grad_enabled(kind == 'step'):
                row[f'{name}_{kind}_call'] = median_ms(call, device, milliseconds)
                row[f'{name}_{kind}'] = median_ms(call, device, milliseconds, as_graph=True)
    with torch.no_grad():
        row['difference'] = relative_error(ours(inputs), flipping())
    for kind in ('forward', 'step', 'forward_call', 'step_call'):
        row[f'ratio_{kind}'] = row[f'mamba_ssm_{kind}'] / row[f'triton_{kind}']
    return row


def scan_speed(args: argparse.Namespace, report: dict, device: torch.device) -> None:
    """Triton in both directions against mamba-ssm with flips, and both against the bandwidth of a copy."""
    bandwidth = report['rates']['copy_gbytes']
    rows = []
    report['scan-speed'] = dict(rows=rows)
    for dtype in LIMITS:
        for shape in speed_shapes():
            row = time_shape(shape, dtype, device, args.milliseconds)
            for kind in ('forward', 'step'):
                moved = least_bytes(*shape, dtype.itemsize, kind == 'step')
                for name in ('triton', 'mamba_ssm'):
                    row[f'{name}_{kind}_of_copy'] = moved / row[f'{name}_{kind}'] / 1e6 / bandwidth
            rows.append(row)
            args.save()
            free_memory()
    shown = [
        {
            'use': row['use'],
            '(B, D, L)': str((row['batch'], row['channels'], row['length'])),
            'type': row['dtype'],
            'forward': f'{row["triton_forward"]:.3f} / {row["mamba_ssm_forward"]:.3f}',
            'x': row['ratio_forward'],
            'both passes': f'{row["triton_step"]:.3f} / {row["mamba_ssm_step"]:.3f}',
            'x ': row['ratio_step'],
            'of a copy': f'{row["triton_forward_of_copy"]:.0%}, {row["triton_step_of_copy"]:.0%}',
            'one call': f'{row["triton_step_call"]:.2f} / {row["mamba_ssm_step_call"]:.2f}',
            'x  ': row['ratio_step_call'],
        }
        for row in rows
    ]
    print('milliseconds of the GPU, triton / mamba-ssm with flips; share of the bandwidth of a copy, forward and both')
    print('passes; one call of both passes from Python, the host included')
    print(format_table(shown, {key: '.2f' if key.strip() == 'x' else '' for key in shown[0]}))
