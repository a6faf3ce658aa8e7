"""Pruning: capture a model, find coupled channels, score them, solve for widths, cut.

    model ── trace ──► Captured(module, graph) ── channel_groups ──► ChannelGroups
    ChannelGroups + gradients ── importance ──► scores (channels,) per group
    scores, costs, limits ── solve ──► Plan ── prune ──► smaller Captured

Only `trace`, `importance`, `curves` and `surgery` know torch.
"""
