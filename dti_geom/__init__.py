"""Embedding geometry for text-to-image models, and Directional Textual Inversion.

    import dti_geom as dti

    m = dti.open("mini")
    m.neighbors("fox")
    run = dti.train("mini", images="green-fox", method="ti")
    m.norms(run).figure()

Names are loaded on first use, so that the import itself is quick.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
