"""Embedding geometry for text-to-image models, and Directional Textual Inversion.

    import dti_geom

    (encoder,) = dti_geom.open_encoders("mini")
    dti_geom.show(dti_geom.measure(encoder, "norms"))

Names are loaded on first use, so that the import itself is quick.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
