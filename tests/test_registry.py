"""Names of parts: those of older versions still mean the same part."""

import pytest

from aejax.config import with_defaults
from aejax.registry import RENAMED, current_name, first_name, lookup
from aejax.study import run_id

OLD = {
    "aejax.compress.nets:Codec": "aejax.codec.nets:Codec",
    "aejax.denoise.models:UNetDenoiser": "aejax.denoising.models:UNetDenoiser",
    "aejax.generate.objective:Evidence": "aejax.generation.objective:Evidence",
    "aejax.generate.vae:HierarchicalVAE": "aejax.generation.vae:HierarchicalVAE",
    "aejax.generate.vae:SpectralDecoder": "aejax.generation.spectral:SpectralDecoder",
    "aejax.generate.classifier:Classifier": "aejax.generation.features.classifier:Classifier",
    "aejax.train.optim:adam": "aejax.training.optim:adam",
}


@pytest.mark.parametrize("old", OLD)
def test_an_old_name_is_the_part_of_today(old):
    assert current_name(old) == OLD[old] and first_name(OLD[old]) == old
    assert current_name(OLD[old]) == OLD[old]
    if "optim" not in old:
        assert lookup(old, {}, "part") is lookup(OLD[old], {}, "part")


def test_no_prefix_hides_another():
    first = {new: old for new, old in reversed(RENAMED)}
    for new, old in RENAMED:
        assert current_name(old + "x") == new + "x" and first_name(new + "x") == first[new] + "x"


def test_the_id_of_a_run_stays_when_a_package_is_renamed():
    for old, new in OLD.items():
        assert run_id({"model.name": old}) == run_id({"model.name": new})


def test_a_stored_config_with_old_names_is_the_same_config():
    old = {"model": {"name": "aejax.denoise.models:UNetDenoiser"}}
    assert with_defaults(old)["model"]["name"] == "aejax.denoising.models:UNetDenoiser"
