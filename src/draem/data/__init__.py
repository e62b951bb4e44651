"""From a folder to arrays: layouts, decoded images, rendered demo data."""
