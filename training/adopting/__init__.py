"""A model that Sluice did not build -> a published version like any other.

reading.py       what cannot be read, in a sentence
reading_hdf5.py  all of an HDF5 file, read once in a process of its own
recognising.py   whether a path holds a model
loading.py       a file or an object -> a Keras model, or a sentence why not
guessing.py      what its inputs and outputs are, as far as the model itself says
rows.py          two rows that it is asked for, and whether one hangs on the other
activations.py   what each output comes out of
labels.py        the names of its classes
naming.py        what they are called, where Keras lost the names
wrapping.py      preprocessing and names put round it, so that the contract holds
adopt.py         these four together: what the user said comes first
samples.py       pictures to try it on: the user's, or random ones
saved_models.py  a SavedModel, which is published as it is
asking.py        one asked in a process of its own, as it may have no end
measuring.py     what it is worth on pictures whose class the user says
describing.py    what lies beside the version for people
publish.py       all of it, in order
"""
