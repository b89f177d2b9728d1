"""A model that Sluice did not build -> a published version like any other.

loading.py    a file, a directory or an object -> a Keras model, or a sentence why not
guessing.py   what its inputs and outputs are, as far as the model itself says
naming.py     what they are called, where Keras lost the names
wrapping.py   preprocessing and names put round it, so that the contract holds
adopt.py      these four together: what the user said comes first
samples.py    pictures to try it on: the user's, or random ones
describing.py what lies beside the version for people
publish.py    all of it, in order
"""
