"""Events on their way in: an uploaded file, the connector that reads it, the tables that it ends in."""
