"""Criteria: functions that score channels, one module per family, each function found by its own name.

    weights       what a layer's weights look like: no data
    activations   what its channels put out: inputs
    gradients     what the outputs or the loss feel of a channel, to first order: inputs, mostly with targets
    second_order  the same to second order
    connections   weights times gradients, made for networks before training
    motion        where weights go in a few steps of training

A criterion is given `Evidence`, returns `Found` and changes nothing. Adding one is adding one function here: the tests
find it, and hold that its scores move with their channels and that the model is left as it was.
"""
