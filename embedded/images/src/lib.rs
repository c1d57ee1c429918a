//! Native images: from an image name to the program on this machine.
