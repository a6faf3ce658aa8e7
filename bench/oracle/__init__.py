"""A judge of pruned models that shares no code with the rules that prune.

`survivors` finds out by index tracking which elements of which parameter are left. `reference` runs the *original*
model with all other elements zero while every tensor carries a mask of equal shape that says which of its elements are
*alive*. An element is dead when it was computed from removed weights only, or belongs to a channel that was; a pruned
model does not have it, so nothing that is alive may depend on it. What that means per kind of operator (`operators`):

- **Moved** (view, permute, slice, concat, pad, index, roll, pixel shuffle, ...): the mask is moved by the same
  operator. Constants that padding puts in are alive unless the whole line that they extend is dead.
- **Element-wise**: dead where any operand is dead. Two alive channels may only meet each other.
- **Contracted** (convolution, matrix products): dead operands contribute zero; an output is alive when at least one of
  its terms has two alive operands. With a removed filter no term has.
- **Reduced** (sum, mean, variance, maximum, norm, softmax, layer/group/instance norm, ...): over the alive elements
  only, counts included; the result is dead when nothing alive was reduced. Constants of the model, such as the scale of
  an attention, stay what they were.
- **Batch norm** with stored statistics is element-wise, with those of the batch a reduction.
- **Resampled in space** (pooling, interpolation): whole channels are alive or dead, anything else is not judged.
- **Overwritten** (fill, copy): alive as what is written.

Views share their mask with what they are views of, so that writing in place through a view needs no special case. An
operator without a rule runs as it is while all its inputs are alive; one that meets a dead element is an
`UnjudgedError`, never a guess.
"""
