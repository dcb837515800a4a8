"""How systems and metrics are called where people read them."""

SYSTEMS = {
    "pchvae": "pchVAE",
    "chvae": "chVAE",
    "highvae": "High VAE",
    "lowvae": "Low VAE",
    "vqvae2": "VQ-VAE-2",
    "aeflow": "AE-FLOW",
    "ae": "AE",
    "fanogan": "f-AnoGAN",
    "ganomaly": "GANomaly",
    "differnet": "DifferNet",
    "fastflow": "FastFlow",
}
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
