"""The embedded model `mini`: a small text-to-image pipeline that ships with the package.

weights/     its pipeline folder, scorer, personal concepts and measured figures
domain.py    the things, colours and backgrounds that it knows
scenes.py    what a picture shows; wording.py puts it into words, checks.py checks it
prompts.py   what a learned token is evaluated on
scorer.py    the network that reads its pictures
concepts.py  the personal concepts, to learn a token for
recipe/      trains all of it from nothing; not in the wheel
"""
