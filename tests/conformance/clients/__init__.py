"""One file a client, run by the Python of its own environment: no file here may import anything of this project."""
