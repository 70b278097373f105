"""The `turbo` engine: the whole path from token ids to finished audio."""
