"""optim.json: AdamW trajectories in float64. Gradients are fixed in advance, so any implementation can replay them."""

import json

from common import tensor, torch, versions, write

STEPS, WARMUP, BASE = 12, 3, 0.05


def draw(generator, *shape, scale=1.0):
    return torch.round(torch.randn(*shape, generator=generator, dtype=torch.float64) * scale * 1000) / 1000


def schedule(step):
    """Linear warmup then linear decay to zero at STEPS; `step` counts from 0."""
    if step < WARMUP:
        return BASE * step / WARMUP
    return BASE * (STEPS - step) / (STEPS - WARMUP)


def trajectory(name, clip, foreach):
    generator = torch.Generator().manual_seed(61)
    table = draw(generator, 5, 3).requires_grad_(True)
    bias = draw(generator, 4).requires_grad_(True)
    start = {"table": tensor(table), "bias": tensor(bias)}
    groups = [{"params": [table], "weight_decay": 0.01}, {"params": [bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=BASE, betas=(0.9, 0.999), eps=1e-8, foreach=foreach)
    steps = []
    for step in range(STEPS):
        rate = schedule(step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        gradient = draw(generator, 5, 3, scale=1.5)
        if step % 3:
            gradient[[step % 5, (step + 2) % 5]] = 0.0  # rows whose tokens are absent from the batch
        if step == 4:
            gradient[:] = 0.0
        table.grad, bias.grad = gradient.clone(), draw(generator, 4, scale=0.001 if step == 7 else 1.5)
        given = {"table": tensor(table.grad), "bias": tensor(bias.grad)}
        norm = None
        if clip is not None:
            norm = torch.nn.utils.clip_grad_norm_([table, bias], clip).item()
        used = {"table": tensor(table.grad), "bias": tensor(bias.grad)}
        optimizer.step()
        state = {
            key: {n: tensor(optimizer.state[p][key]) for n, p in (("table", table), ("bias", bias))}
            for key in ("exp_avg", "exp_avg_sq")
        }
        steps.append(
            {
                "lr": rate,
                "grads": given,
                "grad_norm": norm,
                **({"clipped": used} if clip is not None else {}),
                "params": {"table": tensor(table), "bias": tensor(bias)},
                **(state if step in (0, STEPS - 1) else {}),
            }
        )
    return {
        "name": name,
        "betas": [0.9, 0.999],
        "eps": 1e-8,
        "weight_decay": {"table": 0.01, "bias": 0.0},
        "max_grad_norm": clip,
        "start": start,
        "steps": steps,
    }


def main():
    plain = trajectory("plain", None, False)
    # The two implementations in torch agree to rounding.
    for one, other in zip(plain["steps"], trajectory("plain", None, True)["steps"]):
        for key, value in one["params"].items():
            a, b = (torch.tensor(json.loads(x)["data"], dtype=torch.float64) for x in (value, other["params"][key]))
            assert (a - b).abs().max() < 1e-14
    write("optim.json", {"about": versions(), "cases": [plain, trajectory("clipped", 1.0, False)]}, break_to=4)


if __name__ == "__main__":
    main()
