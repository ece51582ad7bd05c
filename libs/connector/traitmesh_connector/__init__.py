"""Write connectors that speak the Airbyte protocol, and run any that do."""
