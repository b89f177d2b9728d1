"""Why a classifier says so: where in the picture the evidence for a class lies (docs/explain.md).

recording.py  what each layer gives while the model is called
graph.py      what a tensor of a TensorFlow graph is computed from
looking.py    where to look: the last convolution's maps, tokens, or the picture itself
tokens.py     of a transformer: which of its tokens are which patches of the picture
scoring.py    the score that is explained, before the softmax
heat.py       maps or tokens, and gradients -> heat of 0..1
judging.py    is an explanation one? pixels taken away, weights shuffled
explainer.py  these together: the graph behind the signature `explain`
"""
