"""The same networks, faster: layers that compute what the script's compute, with the same parameters."""
