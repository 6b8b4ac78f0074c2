"""The paper's tables and figures: for each, the sweep that repeats it, its axis and metrics, and its place in the paper.

To add one, add an :class:`Item` to :data:`ITEMS` and a sweep of that name to ``sweeps/``.
"""

from __future__ import annotations

from dataclasses import dataclass

PAPER = "Hansen-Estruch, Vishwanath, Zhang, Tomar, Unified Auto-Encoding with Masked Diffusion, arXiv 2406.17688"
STANDARD_METRICS = (
    "*probe.acc_*",
    "*generate*.fid",
    "*generate*.fd_*",
    "*generate*.is",
    "*generate*.is_*",
    "*generate*.accuracy_*",
)


@dataclass(frozen=True)
class Item:
    """A table with its figure. ``sweep`` is a shipped sweep's name.

    ``x`` is the path of the axis that the figure runs along. If another axis's path is given as ``map_y``, a heat map over both
    is drawn too. ``published`` names files of ``paper/`` to compare with.
    """

    title: str
    sweep: str
    x: str
    source: str
    metrics: tuple[str, ...] = STANDARD_METRICS
    published: tuple[str, ...] = ()
    map_y: str | None = None

    @property
    def command(self) -> str:
        """The command that makes the results."""
        return f"umd-bench sweep {self.sweep}"


# In the order of the index.
ITEMS = (
    # How much of a noised image to hide; the paper's choice is 0.375.
    Item(
        title="Mask ratio of noised images",
        sweep="mask_ratio",
        x="stages.pretrain.corruption.mask_ratio",
        source=f"{PAPER}: mask-ratio ablation",
    ),
    # The share of clean images in a batch, the paper's "no-noise probability"; its choice is 0.5.
    Item(
        title="Share r_t0 of clean, highly masked images",
        sweep="r_t0",
        x="stages.pretrain.corruption.r_t0",
        source=f"{PAPER}: ablation of the no-noise probability",
    ),
    # The official code takes cosine for pixels and linear for latents.
    Item(
        title="Noise schedule",
        sweep="noise_schedule",
        x="noise.schedule",
        source=f"{PAPER}: choice of schedule; cosine: Nichol and Dhariwal, arXiv 2102.09672",
    ),
    # Is UMD close to MAE in probing and close to DiT in class-conditional generation?
    Item(
        title="UMD, MAE, DiT and MaskDiT",
        sweep="methods",
        x="method",
        source=f"{PAPER}: comparison of methods",
        published=("imagenet64", "imagenet256"),
    ),
    # Ten-shot probes on other data sets: does UMD transfer like MAE?
    Item(
        title="Transfer to other data sets",
        sweep="transfer",
        x="method",
        source=f"{PAPER}: Figure 2",
        metrics=("probe.acc_*", "transfer_*.acc_*"),
    ),
    # Does UMD keep its representation while it learns to draw classes?
    Item(
        title="Over fine-tuning",
        sweep="finetune_curve",
        x="stages.finetune_probe.snapshot, stages.generate.snapshot",
        source=f"{PAPER}: Figure 4",
    ),
    # Latents of 256 px images: UMD-L/2 under three guidances, and DiT-L/2 from scratch.
    Item(
        title="Latent UMD and DiT from scratch",
        sweep="latent",
        x="stages.generate.cfg_scale",
        source=f"{PAPER}: latent table and Figure 5",
        published=("imagenet256",),
    ),
    # Does the order of the methods hold for both sizes?
    Item(
        title="Model size",
        sweep="model_size",
        x="model",
        source=f"{PAPER}: S/4 and B/4 at 64 px",
        published=("imagenet64",),
    ),
    # Operations, images per second and device-hours of each method; they are in cost.md.
    Item(
        title="Cost of pre-training",
        sweep="training_cost",
        x="method",
        source=f"{PAPER}: training time",
        metrics=("pretrain.loss_final",),
    ),
    # Few-shot accuracy after every encoder block and at several noise levels.
    Item(
        title="Block and noise level of the probe",
        sweep="layers",
        x="stages.probe.t",
        source=(
            "Xiang et al., arXiv 2303.09769, and Chen et al., arXiv 2401.14404, for diffusion models; not an item of the paper"
        ),
        metrics=("probe.acc_*",),
        map_y="stages.probe.block",
    ),
)
