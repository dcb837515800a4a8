"""Names of metrics in reports."""

METRICS = {
    "auroc": "AUROC, raw",
    "auroc_position_corrected": "AUROC, position-corrected",
    "average_precision": "Average precision (AP)",
    "mse": "Mean squared error (MSE)",
    "pixel_auroc": "Pixel AUROC",
    "pixel_average_precision": "Pixel average precision",
    "aupro": "AUPRO (regions, up to 30 % false positives)",
    "best_dice": "Best Dice",
}
