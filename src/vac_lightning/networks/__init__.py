"""Networks: images -> logits and heatmaps."""
