"""From the tables of traits to the model that is served: write, audit, publish."""
