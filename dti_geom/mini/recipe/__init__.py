"""Trains the embedded model from nothing: `python -m dti_geom.mini.recipe`. Not in the wheel.

artwork.py            fetches the emoji artwork
sampling.py           draws random scenes; backgrounds.py and painting.py paint them
captions.py           writes captions; labels.py says what can be read off a scene or a caption
concept_pictures.py   lists and paints the personal concepts
dataset.py            pictures with captions, on disk
loop.py, muon.py      the training loop and its optimiser
tokenizer.py, autoencoder.py, text.py, denoiser.py, scorer_training.py    the networks
stages.py             the recipe: every stage in order; __main__.py runs them
export.py             writes what ships
controls.py           text encoders of other architectures, given the same reading lesson
exams.py, evaluate.py, targets.py, card.py    measure what ships, and write its card
"""
