"""What people look at: tables, plots, pictures, progress. Data in, renderables or files out; nothing is measured."""
