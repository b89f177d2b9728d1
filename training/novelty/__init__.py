"""How unlike its training images a picture is (docs/decisions/0018-novelty.md says why so).

features.py  what is looked at: the means and deviations of the last maps before the head
spread.py    where such features lay in training, frozen: features -> distance
fitting.py   both of a trained model, with the distance from which a picture counts as unlike
"""
