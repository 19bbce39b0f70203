"""The extent to which two adapters change the same layers in the same way.

For changes D = B A the cosine is ⟨D₁, D₂⟩ / (‖D₁‖ ‖D₂‖), 1 for the same direction, -1 for opposite
ones. With D = U S V it is computed from products of the ranks' size: ⟨D₁, D₂⟩ is the sum of
S₁ᵢ S₂ⱼ (U₁ᵀU₂)ᵢⱼ (V₁V₂ᵀ)ᵢⱼ. The spaces of inputs (rows of V) and outputs (columns of U) are
compared by the mean of the squared cosines of their principal angles (Björck and Golub 1973,
doi:10.2307/2005662): 1 where the smaller one lies in the larger.

Random factors have cosines of about 1/√(out · in), whatever their ranks, and spaces that share
about (larger rank) / width. What trained adapters have is in `docs/benchmarks.md`.
"""

from __future__ import annotations

from dataclasses import dataclass

from worker.core.lora_files.algebra import one_thread
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.lora_files.parts import layer_order
from worker.core.lora_files.tools.combine import Progress
from worker.core.lora_files.tools.lowrank import Spectrum, spectrum_of_product
from worker.core.lora_files.tools.stack import Layer, layers_of


@dataclass(frozen=True)
class LayerOverlap:
    """The cosine of two changes of a layer, and what their spaces of inputs and outputs share."""

    key: str
    cosine: float
    inputs: float
    outputs: float


@dataclass(frozen=True)
class Overlap:
    """The overlap of two adapters: over all layers, and of each layer that both change.

    `cosine`: that of both whole changes, where layers of one adapter alone count as well.
    `changed`: how many layers at least one of them changes. Layers are in the order in which an
    image is computed, text encoders first.
    """

    cosine: float
    changed: int
    layers: tuple[LayerOverlap, ...]


def measure_overlap(
    first: LoadedAdapter,
    second: LoadedAdapter,
    *,
    on_layer: Progress = lambda done, total: None,
) -> Overlap:
    """The overlap of two adapters; their weights count by their signs alone.

    `on_layer(done, total)` may raise to stop. Raises ToolError for different base models.
    """
    layers = sorted(layers_of([first, second]), key=lambda layer: layer_order(layer.key))
    products, energies, found = 0.0, [0.0, 0.0], []
    for done, layer in enumerate(layers, start=1):
        with one_thread():
            spectra = _spectra(layer)
        for index, spectrum in spectra.items():
            energies[index] += spectrum.energy
        if len(spectra) == 2:
            product, overlap = _compare(layer.key, spectra[0], spectra[1])
            products += product
            found.append(overlap)
        on_layer(done, len(layers))
    cosine = _ratio(products, energies[0] * energies[1])
    return Overlap(cosine, len(layers), tuple(found))


def _spectra(layer: Layer) -> dict[int, Spectrum]:
    """The spectrum of each adapter's change, by the adapter's place."""
    return {change.index: spectrum_of_product(*change.factors()) for change in layer.changes}


def _compare(key: str, one: Spectrum, two: Spectrum) -> tuple[float, LayerOverlap]:
    """(⟨D₁, D₂⟩, the overlap of the layer)."""
    ranks = one.rank, two.rank
    if not all(ranks):
        return 0.0, LayerOverlap(key, 0.0, 0.0, 0.0)
    outputs = one.left[:, : ranks[0]].T @ two.left[:, : ranks[1]]
    inputs = one.right[: ranks[0]] @ two.right[: ranks[1]].T
    product = float(one.values[: ranks[0]] @ (outputs * inputs) @ two.values[: ranks[1]])
    shared = [float(cosines.square().sum()) / min(ranks) for cosines in (inputs, outputs)]
    return product, LayerOverlap(key, _ratio(product, one.energy * two.energy), *shared)


def _ratio(product: float, energies: float) -> float:
    """A cosine from a product and the product of both squared norms; 0 if one of them is 0."""
    return 0.0 if energies == 0 else max(-1.0, min(1.0, product / energies**0.5))
