"""From raw pixels and voxels to the images of a data set."""
