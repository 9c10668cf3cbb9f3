"""The ground plane of a photo: depth, planes, classes, smooth regions, and the camera from objects of known size."""
