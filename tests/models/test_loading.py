import pytest

from dti_geom.errors import ModelFilesError
from dti_geom.models.loading import import_transformers


def test_an_old_transformers_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    monkeypatch.setattr(transformers, "__version__", "4.57.1")
    with pytest.raises(
        ModelFilesError, match=r"transformers 4\.57\.1 is installed; 5\.0 or newer is needed"
    ):
        import_transformers()
