"""SD 1.x, SD 2.x and SDXL: a UNet that removes the noise of a diffusion process."""
